"""Sessions, ids, propagation and sampling."""

from __future__ import annotations

import asyncio
import threading
import uuid

import pytest
from opentelemetry import baggage, context, propagate, trace

import llmobs
from llmobs.errors import ConfigurationError
from llmobs.sdk import configure
from tests.sdk.conftest import Start
from tests.sdk.receiver import Receiver


@llmobs.observe(kind="chat", model="m")
def ask(prompt: str) -> str:
    return prompt


def test_a_session_is_on_every_span_within_and_on_none_after(start: Start) -> None:
    otlp = start()
    with llmobs.session("s-1", "u-1", feature="search", tenant="acme"):
        ask("in")
    ask("out")
    llmobs.flush(10)
    inside, outside = otlp.spans
    assert inside.attributes["gen_ai.conversation.id"] == "s-1"
    assert inside.attributes["session.id"] == "s-1"
    assert inside.attributes["user.id"] == "u-1"
    assert inside.attributes["llmobs.feature"] == "search"
    assert inside.attributes["tenant"] == "acme"
    assert "session.id" not in outside.attributes


def test_an_inner_session_says_what_differs(start: Start) -> None:
    otlp = start()
    with llmobs.session("s-1", "u-1", feature="a"), llmobs.session("s-2", feature="b"):
        ask("x")
    llmobs.flush(10)
    a = otlp.spans[0].attributes
    assert (a["session.id"], a["user.id"], a["llmobs.feature"]) == ("s-2", "u-1", "b")


def test_sessions_of_concurrent_tasks_do_not_mix(start: Start) -> None:
    otlp = start()

    async def serve(name: str) -> None:
        async with llmobs.session(name):
            await asyncio.sleep(0.001)
            ask(name)

    async def run() -> None:
        await asyncio.gather(*(serve(f"s-{n}") for n in range(20)))

    asyncio.run(run())
    llmobs.flush(10)
    for span in otlp.spans:
        assert span.attributes["session.id"] in span.attributes["gen_ai.input.messages"]
    assert len(otlp.spans) == 20


def test_a_decorators_feature_holds_for_all_within(start: Start) -> None:
    otlp = start()

    @llmobs.observe(feature="checkout")
    def flow() -> None:
        ask("x")

    flow()
    llmobs.flush(10)
    assert otlp.span("chat m").attributes["llmobs.feature"] == "checkout"


def test_ids_lead_back_to_the_span(start: Start) -> None:
    otlp = start()
    seen: list[llmobs.Ids | None] = []

    @llmobs.observe
    def flow() -> str | None:
        seen.append(llmobs.current_ids())
        return llmobs.trace_id()

    trace_id = flow()
    llmobs.flush(10)
    span = otlp.spans[0]
    assert trace_id == span.trace_id
    assert seen == [llmobs.Ids(span.trace_id, span.span_id)]
    assert llmobs.trace_id() is None


def test_a_trace_goes_on_in_another_service(start: Start) -> None:
    otlp = start()
    carrier: dict[str, str] = {}

    @llmobs.observe
    def call() -> None:
        propagate.inject(carrier)

    with llmobs.session("s-1", "u-1", propagate=True):
        call()
    assert "s-1" in carrier["baggage"]
    token = context.attach(propagate.extract(carrier))
    ask("there")
    with llmobs.session(feature="there"):
        ask("in a session of its own")
    context.detach(token)
    llmobs.flush(10)
    parent = otlp.span("invoke_workflow call")
    for child in (span for span in otlp.spans if span.name == "chat m"):
        assert (child.trace_id, child.parent_id) == (parent.trace_id, parent.span_id)
        assert child.flags & 0x300 == 0x300  # it is known that the parent is remote
    assert otlp.spans[2].attributes["session.id"] == "s-1"


def test_baggage_stays_away_unless_asked(start: Start) -> None:
    start()
    with llmobs.session("s-1"):
        assert baggage.get_all() == {}


def test_our_span_is_a_whole_span_to_others(start: Start) -> None:
    otlp = start()

    @llmobs.observe
    def flow() -> None:
        span = trace.get_current_span()
        assert span.is_recording()
        span.set_attribute("http.route", "/a")
        span.add_event("cache miss", {"key": "k"})
        span.add_link(trace.SpanContext(1, 2, is_remote=True))
        span.set_status(trace.StatusCode.OK)
        span.record_exception(ValueError("handled"))

    flow()
    llmobs.flush(10)
    span = otlp.spans[0]
    assert span.attributes["http.route"] == "/a"
    assert [name for name, _ in span.events] == ["cache miss", "exception"]
    assert span.links == [("0" * 31 + "1", "0" * 15 + "2")]
    assert span.status == 0  # never OK


def test_a_thread_started_within_a_span_can_be_given_its_context(start: Start) -> None:
    otlp = start()

    @llmobs.observe
    def flow() -> None:
        here = context.get_current()

        def work() -> None:
            token = context.attach(here)
            ask("x")
            context.detach(token)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    flow()
    llmobs.flush(10)
    assert otlp.span("chat m").parent_id == otlp.span("invoke_workflow flow").span_id


def test_sampling_keeps_whole_traces_says_its_share_and_counts_all(start: Start) -> None:
    otlp = start(sample_ratio=0.25)

    @llmobs.observe
    def flow() -> None:
        ask("x")

    for _ in range(400):
        flow()
    llmobs.flush(10)
    kept = {span.trace_id for span in otlp.spans}
    assert 50 < len(kept) < 160  # 100 expected; 6 standard deviations are 52
    assert len(otlp.spans) == 2 * len(kept)
    assert {span.trace_state for span in otlp.spans} == {"ot=th:c"}
    assert otlp.point("gen_ai.client.inference.duration").count == 400
    numbers = sorted(span.attributes["llmobs.sequence"] for span in otlp.spans)
    assert numbers == list(range(len(otlp.spans)))


def test_what_is_not_sampled_has_no_number_and_leaves_no_hole(start: Start) -> None:
    otlp = start(sample_ratio=0.5)

    @llmobs.observe
    def work() -> None:
        pass

    for _ in range(200):
        work()
    assert llmobs.flush(5)
    numbers = [span.attributes["llmobs.sequence"] for span in otlp.spans]
    assert 40 < len(numbers) < 160
    assert sorted(numbers) == list(range(len(numbers)))
    assert len({span.attributes["llmobs.process.id"] for span in otlp.spans}) == 1


def test_the_environments_sampler_is_honoured(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    otlp = start()
    ask("x")
    llmobs.flush(10)
    assert otlp.spans == []


def test_a_remote_parents_decision_is_honoured(start: Start) -> None:
    otlp = start()
    for flag in ("00", "01"):
        header = f"00-{'a' * 32}-{'b' * 16}-{flag}"
        token = context.attach(propagate.extract({"traceparent": header}))
        ask(flag)
        context.detach(token)
    llmobs.flush(10)
    assert [span.parent_id for span in otlp.spans] == ["b" * 16]
    assert '"01"' in otlp.spans[0].attributes["gen_ai.input.messages"]


def test_the_environment_configures_what_init_was_not_told(
    otlp: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-env")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging,a=b")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k1")
    llmobs.init()
    ask("x")
    llmobs.flush(10)
    span = otlp.spans[0]
    headers = {name.lower(): value for name, value in otlp.requests[0][2].items()}
    assert headers["x-key"] == "k1"
    assert span.resource["service.name"] == "from-env"
    assert span.attributes["llmobs.content"] == "full"
    assert span.resource["deployment.environment.name"] == "staging"


def test_a_disabled_sdk_does_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    start()
    assert ask("x") == "x"
    assert not llmobs.status().active


def test_init_is_idempotent_and_shutdown_is_too(start: Start) -> None:
    otlp = start()
    start()
    ask("x")
    assert llmobs.shutdown(10)
    assert llmobs.shutdown(10)
    assert ask("after") == "after"
    assert len(otlp.spans) == 1
    assert llmobs.status().exported == 1
    assert not llmobs.status().active


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ConfigurationError, match="capture_content"):
        llmobs.init(capture_content="all")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="http://localhost:4318"):
        llmobs.init(endpoint="localhost:4318")
    with pytest.raises(ConfigurationError, match="sample_ratio"):
        llmobs.init(sample_ratio=2)
    assert not llmobs.status().active


def test_one_session_object_serves_many_tasks(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    otlp = start()
    shared = llmobs.session("shared")

    async def task(number: int) -> None:
        with shared:
            await asyncio.sleep(0.001 * (number + 1))
            ask("in")
        await asyncio.sleep(0)
        ask("out")

    async def main() -> None:
        await asyncio.gather(*map(task, range(4)))

    asyncio.run(main())
    llmobs.flush(10)
    for span in otlp.spans:
        is_inside = '"in"' in span.attributes["gen_ai.input.messages"]
        assert span.attributes.get("session.id") == ("shared" if is_inside else None)
    assert len(otlp.spans) == 8
    assert "detach" not in caplog.text


def test_what_a_session_is_given_is_read_at_once_and_becomes_texts(start: Start) -> None:
    otlp = start(capture_content="redacted")
    tags = {"mail": "jo@x.org"}
    session = llmobs.session(7, uuid.UUID(int=5), tags=tags)  # type: ignore[arg-type]
    tags["late"] = "x"
    with session:
        ask("x")
    llmobs.flush(10)
    a = otlp.spans[0].attributes
    assert (a["session.id"], a["user.id"]) == ("7", str(uuid.UUID(int=5)))
    assert a["tags"] == {"mail": "[EMAIL]"}


def test_a_ratio_keeps_other_vendors_trace_state(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "1.0")
    otlp = start()
    carrier = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "tracestate": "v=1,ot=th:c"}
    token = context.attach(propagate.extract(carrier))
    ask("x")
    context.detach(token)
    llmobs.flush(10)
    assert otlp.spans[0].trace_state == "ot=th:0,v=1"


def test_a_second_init_says_what_it_does_not_change(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    otlp = start(headers={"authorization": "Bearer needle"})
    start(headers={"authorization": "Bearer needle"})
    assert "init again" not in caplog.text
    start(headers={"authorization": "Bearer thread"}, environment="prod")
    (record,) = [r for r in caplog.records if r.message == "init again changes nothing"]
    assert record.__dict__["differing"] == "environment, headers"
    assert llmobs.flush(10)
    ask("x")
    assert llmobs.flush(10)
    assert "deployment.environment.name" not in otlp.spans[0].resource
    assert {"Bearer needle"} == {headers["Authorization"] for _, _, headers in otlp.requests}
    assert "needle" not in repr(configure._here.sender._runtime.settings)  # type: ignore[union-attr]


def test_a_span_of_an_unknown_kind_is_told_and_kept(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    otlp = start()
    with llmobs.span("tol", name="x", attributes={"a": 1, 2: 3}):  # type: ignore[arg-type,dict-item]
        pass
    llmobs.flush(10)
    assert otlp.spans[0].name == "invoke_workflow x"
    assert otlp.spans[0].attributes["a"] == 1
    assert "unknown kind" in caplog.text
