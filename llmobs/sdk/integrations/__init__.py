"""Own integrations of the clients that most applications call: OpenAI, Anthropic, LiteLLM.

OpenAI's and Anthropic's clients come from one generator (Stainless) and do all their calls in one
method; `stainless` puts the span around it and keeps the *bytes* that go over the wire, which the
client has made anyhow and which nobody can change afterwards. `exchange` reads these bytes later,
on the background thread; `openai` and `anthropic` only say which paths are what. `litellm` wraps
functions. `base` is how an integration is switched on and off, `imports` does so when its library
comes to be imported.
"""
