"""Record what a producer really sends: its own client, a local stub of the provider, a listener.

    python tests/analyzer/normalize/record.py PRODUCER [--out tests/analyzer/normalize/data]

Runs with the Python of an environment that has the producer's packages (`PACKAGES` names them)
and needs nothing of llmobs. It writes ``recorded_PRODUCER.json``, log records below ``logs/``:
OTLP/JSON with one member more, ``recordedFrom``, that names the versions. The stub answers in
place of the provider, and keys are made up. Ids and times are what the run gave.

The conversation is the same for all: a question with a system text, the answer streamed, a
tool asked for and its result handed in, an embedding, and a call that the provider refuses.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import http.server
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

QUESTION, ANSWER, SYSTEM = "Where is my order?", "On its way.", "Be brief."
SESSION, USER = "sess-1", "u1"
MODEL, EMBEDDING = "gpt-4o-mini", "text-embedding-3-small"
TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "orders",
        "description": "Look an order up.",
        "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}},
    },
}
USAGE: Final[dict[str, Any]] = {
    "prompt_tokens": 25,
    "completion_tokens": 9,
    "total_tokens": 34,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
}
CALL: Final = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "orders", "arguments": '{"id": 7}'},
}

CLAUDE: Final = "claude-sonnet-4-5"
# Anthropic counts cached tokens apart from the input.
CLAUDE_ANSWER: Final[dict[str, Any]] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": f"{CLAUDE}-20250929",
    "content": [{"type": "text", "text": ANSWER}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 15,
        "output_tokens": 9,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
    },
}

PACKAGES: Final = {
    "genai_anthropic": ("anthropic", "opentelemetry-instrumentation-genai-anthropic"),
    "openinference_anthropic": ("anthropic", "openinference-instrumentation-anthropic"),
    "logfire": ("openai", "logfire"),
    "traceloop": ("openai", "traceloop-sdk", "opentelemetry-instrumentation-openai"),
    "genai_openai": ("openai", "opentelemetry-instrumentation-genai-openai"),
    "openinference": ("openai", "openinference-instrumentation-openai"),
    "openllmetry": ("openai", "opentelemetry-instrumentation-openai"),
    "langfuse": ("openai", "langfuse"),
    "langsmith": ("langsmith", "langchain-openai"),
    "openlit": ("openai", "openlit"),
    "pydantic_ai": ("pydantic-ai-slim", "openai"),
    "vercel_ai": (),
}


# ── the provider and the listener, one server ────────────────────────────────────────────


class Server(http.server.ThreadingHTTPServer):
    """Answers as OpenAI would, and keeps what is exported to it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.traces: list[Any] = []
        self.logs: list[Any] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_POST(self) -> None:
        """Take an export, or answer a call."""
        body = self._body()
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for signal, kept in (("traces", self.server.traces), ("logs", self.server.logs)):
            if self.path.endswith(f"/{signal}"):
                kept.append(_exported(signal, body, self.headers.get("Content-Type", "")))
                self._answer({})
                return
        if self.path.endswith("/chat/completions"):
            self._chat(json.loads(body))
        elif self.path.endswith("/v1/messages"):
            self._answer(CLAUDE_ANSWER)
        elif self.path.endswith("/embeddings"):
            self._answer(
                {
                    "object": "list",
                    "model": EMBEDDING,
                    "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
                    "usage": {"prompt_tokens": 3, "total_tokens": 3},
                }
            )
        else:
            self._answer({})

    def do_GET(self) -> None:
        """Answer what clients ask about the server."""
        self._answer({})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Say nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _chat(self, request: dict[str, Any]) -> None:
        if request["model"] == "refused":
            error = {"message": "Rate limit reached", "type": "requests", "code": "rate_limit"}
            self._answer({"error": error}, status=429)
            return
        asks_tool = "tools" in request and request["messages"][-1]["role"] == "user"
        message: dict[str, Any] = {"role": "assistant", "content": ANSWER, "refusal": None}
        reason = "stop"
        if asks_tool:
            message |= {"content": None, "tool_calls": [CALL]}
            reason = "tool_calls"
        head = {"id": "chatcmpl-1", "created": 1_790_000_000, "model": f"{MODEL}-2024-07-18"}
        if not request.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": reason}
            self._answer(head | {"object": "chat.completion", "choices": [choice], "usage": USAGE})
            return
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        if asks_tool:
            deltas.append({"tool_calls": [CALL | {"index": 0}]})
        else:
            deltas += [{"content": "On its"}, {"content": " way."}]
        head |= {"object": "chat.completion.chunk"}
        chunks: list[dict[str, Any]] = [
            head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
            for delta in deltas
        ]
        chunks.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        chunks.append(head | {"choices": [], "usage": USAGE})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            time.sleep(0.01)
        self.wfile.write(b"data: [DONE]\n\n")

    def _answer(self, document: Any, status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _exported(signal: str, body: bytes, content_type: str) -> Any:
    if "json" in content_type:
        return json.loads(body)
    load = importlib.import_module
    name = {"traces": "trace.v1.trace_service", "logs": "logs.v1.logs_service"}[signal]
    kind = {"traces": "ExportTraceServiceRequest", "logs": "ExportLogsServiceRequest"}[signal]
    message = getattr(load(f"opentelemetry.proto.collector.{name}_pb2"), kind).FromString(body)
    return _with_hex_ids(load("google.protobuf.json_format").MessageToDict(message))


def _with_hex_ids(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_hex_ids(item) for item in node]
    if not isinstance(node, dict):
        return node
    ids = ("traceId", "spanId", "parentSpanId")
    return {
        name: base64.b64decode(value).hex() if name in ids else _with_hex_ids(value)
        for name, value in node.items()
    }


# ── the conversation ─────────────────────────────────────────────────────────────────────


def converse(client: Any) -> None:
    """Hold the conversation with OpenAI's client."""
    asked = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    create = client.chat.completions.create
    create(model=MODEL, messages=asked, temperature=0.2, max_tokens=50)
    for _ in create(
        model=MODEL, messages=asked, stream=True, stream_options={"include_usage": True}
    ):
        pass
    create(model=MODEL, messages=asked, tools=[TOOL])
    result = {"role": "tool", "tool_call_id": "call_1", "content": '{"state": "shipped"}'}
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    create(model=MODEL, messages=[*asked, called, result], tools=[TOOL])
    client.embeddings.create(model=EMBEDDING, input="late orders")
    with contextlib.suppress(Exception):
        create(model="refused", messages=asked)


def ask_claude(url: str) -> None:
    """Ask the question with Anthropic's client."""
    client = importlib.import_module("anthropic").Anthropic(api_key="made-up", base_url=url)
    client.messages.create(
        model=CLAUDE,
        max_tokens=50,
        system=SYSTEM,
        messages=[{"role": "user", "content": QUESTION}],
    )


def _client(url: str, module: str = "openai") -> Any:
    openai = importlib.import_module(module)
    return openai.OpenAI(api_key="made-up", base_url=f"{url}/v1", max_retries=0)


def _provider(url: str) -> Any:
    """Return a tracer provider that exports to the listener at once."""
    load = importlib.import_module
    trace = load("opentelemetry.sdk.trace")
    resource = load("opentelemetry.sdk.resources").Resource.create({"service.name": "shop"})
    exporter = load("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter
    provider = trace.TracerProvider(resource=resource)
    processor = load("opentelemetry.sdk.trace.export").SimpleSpanProcessor
    provider.add_span_processor(processor(exporter(endpoint=f"{url}/v1/traces")))
    load("opentelemetry.trace").set_tracer_provider(provider)
    return provider


# ── the producers ────────────────────────────────────────────────────────────────────────


def genai_openai(url: str) -> None:
    """OpenTelemetry's own: content of the spans in log records."""
    load = importlib.import_module
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "EVENT_ONLY"
    provider = _provider(url)
    logs = load("opentelemetry.sdk._logs").LoggerProvider(resource=provider.resource)
    export = load("opentelemetry.sdk._logs.export")
    exporter = load("opentelemetry.exporter.otlp.proto.http._log_exporter").OTLPLogExporter
    logs.add_log_record_processor(
        export.SimpleLogRecordProcessor(exporter(endpoint=f"{url}/v1/logs"))
    )
    instrumentor = load("opentelemetry.instrumentation.genai.openai").OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=provider, logger_provider=logs)
    converse(_client(url))


def openinference(url: str) -> None:
    """Arize's."""
    load = importlib.import_module
    instrumentor = load("openinference.instrumentation.openai").OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=_provider(url))
    using = load("openinference.instrumentation").using_attributes
    with using(session_id=SESSION, user_id=USER):
        converse(_client(url))


def genai_anthropic(url: str) -> None:
    """OpenTelemetry's own for Anthropic: content on the spans."""
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"
    module = importlib.import_module("opentelemetry.instrumentation.genai.anthropic")
    module.AnthropicInstrumentor().instrument(tracer_provider=_provider(url))
    ask_claude(url)


def openinference_anthropic(url: str) -> None:
    """Arize's for Anthropic."""
    module = importlib.import_module("openinference.instrumentation.anthropic")
    module.AnthropicInstrumentor().instrument(tracer_provider=_provider(url))
    ask_claude(url)


def traceloop(url: str) -> None:
    """OpenLLMetry's SDK: decorators around the calls."""
    os.environ |= {"TRACELOOP_TELEMETRY": "false", "TRACELOOP_METRICS_ENABLED": "false"}
    sdk = importlib.import_module("traceloop.sdk")
    decorators = importlib.import_module("traceloop.sdk.decorators")
    sdk.Traceloop.init(
        app_name="shop", api_endpoint=url, disable_batch=True, telemetry_enabled=False
    )
    client = _client(url)

    def orders(id: int) -> str:  # noqa: A002 - the name on the wire
        return "shipped"

    def order_help(question: str) -> str:
        sdk.Traceloop.set_association_properties({"session_id": SESSION, "user_id": USER})
        asked = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
        answer = client.chat.completions.create(model=MODEL, messages=asked)
        decorators.tool(name="orders")(orders)(7)
        return str(answer.choices[0].message.content)

    decorators.workflow(name="order-help")(order_help)(QUESTION)


def logfire(url: str) -> None:
    """Pydantic's Logfire around OpenAI's client."""
    module = importlib.import_module("logfire")
    export = importlib.import_module("opentelemetry.sdk.trace.export")
    http = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    processor = export.SimpleSpanProcessor(http.OTLPSpanExporter(endpoint=f"{url}/v1/traces"))
    module.configure(
        send_to_logfire=False,
        service_name="shop",
        console=False,
        additional_span_processors=[processor],
    )
    client = _client(url)
    module.instrument_openai(client)
    converse(client)


def openllmetry(url: str) -> None:
    """Traceloop's."""
    os.environ["TRACELOOP_TRACE_CONTENT"] = "true"
    module = importlib.import_module("opentelemetry.instrumentation.openai")
    module.OpenAIInstrumentor().instrument(tracer_provider=_provider(url))
    converse(_client(url))


def langfuse(url: str) -> None:
    """Langfuse's SDK with its drop-in client."""
    os.environ.setdefault("OTEL_SERVICE_NAME", "shop")
    module = importlib.import_module("langfuse")
    langfuse = module.Langfuse(public_key="pk-made-up", secret_key="sk-made-up", base_url=url)
    client = _client(url, "langfuse.openai")
    with (
        langfuse.start_as_current_observation(name="order-help", as_type="span"),
        module.propagate_attributes(session_id=SESSION, user_id=USER, trace_name="order-help"),
    ):
        converse(client)
        with langfuse.start_as_current_observation(
            name="orders", as_type="tool", input={"id": 7}
        ) as tool:
            tool.update(output="shipped")
    langfuse.flush()


def langsmith(url: str) -> None:
    """LangSmith's OTLP export of a LangChain run."""
    os.environ |= {
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_OTEL_ENABLED": "true",
        "LANGSMITH_OTEL_ONLY": "true",
        "LANGSMITH_API_KEY": "made-up",
        "LANGSMITH_ENDPOINT": url,
    }
    _provider(url)
    load = importlib.import_module
    model = load("langchain_openai").ChatOpenAI(
        model=MODEL, api_key="made-up", base_url=f"{url}/v1", max_retries=0
    )
    tools = load("langchain_core.tools")
    prompts = load("langchain_core.prompts")

    def orders(id: int) -> str:  # noqa: A002 - the name on the wire
        """Look an order up."""
        return "shipped"

    config = {"metadata": {"session_id": SESSION, "user_id": USER}}
    prompt = prompts.ChatPromptTemplate.from_messages([("system", SYSTEM), ("user", "{question}")])
    (prompt | model).with_config(run_name="order-help").invoke({"question": QUESTION}, config)
    tools.tool(orders).invoke({"id": 7}, config)
    load("langchain_core.tracers.langchain").wait_for_all_tracers()
    load("langsmith").Client().flush()
    load("opentelemetry.trace").get_tracer_provider().force_flush()


def openlit(url: str) -> None:
    """OpenLIT's."""
    module = importlib.import_module("openlit")
    module.init(
        otlp_endpoint=url,
        application_name="shop",
        disable_batch=True,
        disable_metrics=True,
        pricing_json=f"{url}/pricing.json",
    )
    converse(_client(url))


def pydantic_ai(url: str) -> None:
    """An agent of Pydantic AI with a tool."""
    load = importlib.import_module
    module = load("pydantic_ai")
    settings = load("pydantic_ai.models.instrumented").InstrumentationSettings(
        tracer_provider=_provider(url)
    )
    provider = load("pydantic_ai.providers.openai").OpenAIProvider(
        base_url=f"{url}/v1", api_key="made-up"
    )
    model = load("pydantic_ai.models.openai").OpenAIChatModel(MODEL, provider=provider)
    module.Agent.instrument_all(settings)
    agent = module.Agent(model, name="helper", instructions=SYSTEM)

    def orders(id: int) -> str:  # noqa: A002 - the name on the wire
        """Look an order up."""
        return "shipped"

    agent.tool_plain(orders)
    agent.run_sync(QUESTION)


VERCEL: Final = """
import { generateText, streamText, embed, tool, jsonSchema } from "ai";
import { createOpenAI } from "@ai-sdk/openai";
import { NodeTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-node";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
const url = process.argv[2];
const exporter = new OTLPTraceExporter({ url: `${url}/v1/traces` });
const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
provider.register();
const openai = createOpenAI({ apiKey: "made-up", baseURL: `${url}/v1` });
const orders = tool({
  description: "Look an order up.",
  inputSchema: jsonSchema({ type: "object", properties: { id: { type: "integer" } } }),
  execute: async () => "shipped",
});
const experimental_telemetry = {
  isEnabled: true, functionId: "order-help", metadata: { sessionId: "sess-1", userId: "u1" },
};
const model = openai.chat("gpt-4o-mini");
const system = "Be brief.", prompt = "Where is my order?";
let steps = 0;
await generateText({
  model, system, prompt, tools: { orders }, stopWhen: () => ++steps > 1, experimental_telemetry,
});
const streamed = streamText({ model, system, prompt, experimental_telemetry });
for await (const _ of streamed.textStream) {}
await embed({
  model: openai.embedding("text-embedding-3-small"), value: "late orders", experimental_telemetry,
});
await provider.forceFlush();
"""


def vercel_ai(url: str) -> None:
    """Vercel's SDK in Node; the current folder has ``ai``, ``@ai-sdk/openai`` and OTel."""
    script = Path("record.mjs")
    script.write_text(VERCEL)
    subprocess.run(["node", str(script), url], check=True)
    script.unlink()


PRODUCERS: Final[dict[str, Callable[[str], None]]] = {
    producer.__name__: producer
    for producer in (
        genai_openai,
        genai_anthropic,
        openinference,
        openinference_anthropic,
        openllmetry,
        traceloop,
        logfire,
        langfuse,
        langsmith,
        openlit,
        pydantic_ai,
        vercel_ai,
    )
}


# ── the fixture ──────────────────────────────────────────────────────────────────────────


def _versions(producer: str) -> dict[str, str]:
    if producer == "vercel_ai":
        found = {}
        for name in ("ai", "@ai-sdk/openai"):
            package = Path("node_modules") / name / "package.json"
            found[name] = str(json.loads(package.read_text())["version"])
        return found
    return {name: importlib.metadata.version(name) for name in PACKAGES[producer]}


def _scrubbed(node: Any) -> Any:
    """Return a document without what tells the machine: ports, host, process, paths."""
    if isinstance(node, list):
        return [
            _scrubbed(item)
            for item in node
            if not (isinstance(item, dict) and str(item.get("key")).startswith(_ABOUT_MACHINE))
        ]
    if isinstance(node, dict):
        return {name: _scrubbed(value) for name, value in node.items()}
    return node


_ABOUT_MACHINE: Final = (
    "host.",
    "process.",
    "os.",
    "server.port",
    "code.",
    "thread.",
    "LANGSMITH_",
    "langsmith.metadata.revision_id",
    "exception.stacktrace",
)


def record(producer: str, folder: Path) -> dict[str, int]:
    """Run one producer and write its fixture; return how many spans and log records there are."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        PRODUCERS[producer](server.url)
        time.sleep(1)
    finally:
        server.shutdown()
        server.server_close()
    written = {}
    for signal, member, exported in (
        ("traces", "resourceSpans", server.traces),
        ("logs", "resourceLogs", server.logs),
    ):
        resources = _merged([one for request in exported for one in request.get(member, ())])
        if not resources:
            continue
        document = {"recordedFrom": _versions(producer), member: _scrubbed(resources)}
        place = folder if signal == "traces" else folder / signal
        place.mkdir(exist_ok=True)
        text = json.dumps(document, indent=1, ensure_ascii=False).replace(server.url, "http://stub")
        (place / f"recorded_{producer}.json").write_text(text + "\n")
        written[signal] = sum(1 for _ in _items(resources))
    return written


def _merged(resources: list[Any]) -> list[Any]:
    """Return the resources of many exports as one each."""
    out: dict[str, Any] = {}
    for one in resources:
        key = json.dumps(one.get("resource"), sort_keys=True)
        kept = out.setdefault(key, one | {"scopeSpans": [], "scopeLogs": []})
        for member in ("scopeSpans", "scopeLogs"):
            for scope in one.get(member, ()):
                same = [s for s in kept[member] if s.get("scope") == scope.get("scope")]
                if not same:
                    kept[member].append(scope)
                    continue
                for items in ("spans", "logRecords"):
                    if items in scope:
                        same[0][items] = same[0].get(items, []) + scope[items]
    return [{name: value for name, value in one.items() if value != []} for one in out.values()]


def _items(resources: list[Any]) -> Iterator[Any]:
    for one in resources:
        for scope in (*one.get("scopeSpans", ()), *one.get("scopeLogs", ())):
            yield from (*scope.get("spans", ()), *scope.get("logRecords", ()))


def main() -> None:
    """Record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("producer", choices=PRODUCERS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    options = parser.parse_args()
    out = options.out.resolve()
    written = record(options.producer, out)
    print(options.producer, written, file=sys.stderr)
    sys.exit(0 if written else 1)


if __name__ == "__main__":
    main()
