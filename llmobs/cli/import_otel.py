"""`llmobs import-otel`: sends what the Collector's ClickHouse exporter recorded to a server."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click
from rich.progress import MofNCompleteColumn, TextColumn

from llmobs.cli import options
from llmobs.cli.output import progress
from llmobs.cli.recorded import PROTOBUF, Recorded
from llmobs.cli.sender import Sender
from llmobs.errors import ConfigurationError
from llmobs.web.query import Query

if TYPE_CHECKING:  # the command line starts without Arrow
    from llmobs.analyzer.store.importer import OtelRequest

__all__ = ["import_otel"]

_JOURNAL: Final = Path(".llmobs-import.json")


@click.command("import-otel")
@click.argument("source")
@options.begin("30d")
@options.until
@options.endpoint("--to")
@options.key
@click.option("--traces", default="otel_traces", show_default=True, help="Table of spans.")
@click.option(
    "--logs",
    default="otel_logs",
    show_default=True,
    help="Table of log records; events of the GenAI conventions are read.",
)
@click.option("--service", "services", multiple=True, help="Read this service alone; repeatable.")
@options.patience
@click.option("--resume", is_flag=True, help="Go on where an interrupted import stopped.")
@options.as_json
def import_otel(
    source: str,
    since: str,
    until: str | None,
    endpoint: str,
    key: str | None,
    traces: str,
    logs: str,
    services: tuple[str, ...],
    patience_s: float,
    resume: bool,
    as_json: bool,
) -> None:
    """Send what the OpenTelemetry Collector's ClickHouse exporter wrote to a server.

    SOURCE is the database, as in clickhouse://user:password@host:8123/otel. How far it came is
    kept in this folder until all is sent. Exit 1 when the server refused something.
    """
    from llmobs.analyzer.store import importer

    told = {"since": since, **({"until": until} if until else {})}
    window = Query(told, {"since", "until"}, time.time_ns()).window()
    parts = urlsplit(source)
    journal = _Journal(
        {
            # Without the password.
            "source": f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}",
            "tables": [traces, logs, *services],
            "endpoint": endpoint,
        }
    )
    since_ns, until_ns = window.since_ns, window.until_ns
    if resume:
        since_ns, until_ns = journal.read() or (since_ns, until_ns)
    tables = importer.OtelTables(traces, logs, services)
    sender = Sender(endpoint, key=key, patience_s=patience_s)
    try:
        sender.check()
        requests = importer.import_otel(source, since_ns, until_ns, tables)
        summary = _send(sender, _shown(requests, quiet=as_json), journal, until_ns)
    finally:
        sender.close()
    _report(summary, as_json=as_json)
    if summary["n_refused"] or summary["n_rejected"]:
        raise click.exceptions.Exit(1)


class _Journal:
    """How far an import has come, beside whoever runs it."""

    def __init__(self, what: dict[str, Any]) -> None:
        self._what = what

    def read(self) -> tuple[int, int] | None:
        """Return the window that is left; None where this import was not interrupted."""
        try:
            known = json.loads(_JOURNAL.read_text(encoding="utf-8"))
            left = int(known.pop("since_ns")), int(known.pop("until_ns"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{str(_JOURNAL)!r} does not say how far an import came ({error}); remove it to "
                "begin anew"
            ) from error
        return left if known == self._what else None

    def note(self, since_ns: int, until_ns: int) -> None:
        """Remember that all before `since_ns` is sent."""
        content = json.dumps({**self._what, "since_ns": since_ns, "until_ns": until_ns})
        fresh = _JOURNAL.with_suffix(".new")
        fresh.write_text(content, encoding="utf-8")
        fresh.replace(_JOURNAL)

    def remove(self) -> None:
        """Forget it: all is sent."""
        _JOURNAL.unlink(missing_ok=True)


def _send(
    sender: Sender, requests: Iterable[OtelRequest], journal: _Journal, until_ns: int
) -> dict[str, Any]:
    started = time.monotonic()
    refused: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    n_items: Counter[str] = Counter()
    done_ns = None
    for request in requests:
        answer = sender.send(
            Recorded(request.signal, PROTOBUF, request.body, request.n_items, 0, 0)
        )
        if answer.refused:
            refused[answer.refused] += request.n_items
        else:
            n_items[request.signal] += request.n_items - answer.n_rejected
            left_out[answer.message] += answer.n_rejected
        if request.done_ns != done_ns:
            done_ns = request.done_ns
            journal.note(done_ns, until_ns)
    journal.remove()
    return {
        "n_spans": n_items["traces"],
        "n_events": n_items["logs"],
        "n_refused": refused.total(),
        "n_rejected": left_out.total(),
        "duration_s": round(time.monotonic() - started, 3),
        "refused": dict(refused.most_common(20)),
        "rejected": dict((+left_out).most_common(20)),
    }


def _report(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(summary))
        return
    click.echo(
        f"{summary['n_spans']:,} spans and {summary['n_events']:,} events sent in "
        f"{summary['duration_s']:.1f} s",
        err=True,
    )
    for what, reasons in (("refused", summary["refused"]), ("left out", summary["rejected"])):
        for reason, n in reasons.items():
            click.echo(f"{n:,} {what}: {reason or 'no reason given'}", err=True)


def _shown(requests: Iterable[OtelRequest], *, quiet: bool) -> Iterator[OtelRequest]:
    """Hand requests on, with a bar on stderr for people."""
    with progress(MofNCompleteColumn(), TextColumn("rows"), quiet=quiet) as bars:
        task = bars.add_task("", total=None)
        for request in requests:
            yield request
            day = datetime.fromtimestamp(request.done_ns / 1e9, UTC)
            bars.update(
                task,
                total=request.n_total,
                advance=request.n_items,
                description=f"{day:%Y-%m-%d %H:%M}",
            )
