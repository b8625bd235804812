"""The part of llmobs that runs in the user's process. Public names are in `llmobs`.

A call's way, in the calling thread: `observe` asks `arguments` for a snapshot (`content.pack`),
opens a `span.LiveSpan` below the current one, runs the function (streams pass through `stream`),
takes a snapshot of the result and puts the span into the `buffer`. No more happens there.

On the one background thread, `export.Sender` takes batches from the buffer, lets `describe` say
them in the conventions' words (`usage` reads providers' responses, `content` shapes and redacts),
counts them in `metrics`, writes them (`wire`) and sends them through OpenTelemetry's exporters.

`configure` begins and ends all this, in forks too; `runtime` holds what one process records with;
`context` has sessions and ids; `foreign` leads other instrumentations' spans through the same
queue; `instrument` switches these on. Whatever goes wrong ends at `guarded`.
"""
