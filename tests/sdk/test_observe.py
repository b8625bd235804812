"""What a decorated function of any kind does, and the span it leaves."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import json
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import llmobs
from llmobs.errors import ConfigurationError
from tests.sdk.conftest import Start
from tests.sdk.receiver import Receiver, Span

ERROR = 2
CLIENT = 3


def only(otlp: Receiver) -> Span:
    assert llmobs.flush(10)
    assert len(otlp.spans) == 1, [span.name for span in otlp.spans]
    return otlp.spans[0]


def texts(span: Span, side: str) -> list[str]:
    messages = json.loads(span.attributes[f"gen_ai.{side}.messages"])
    return [part["content"] for message in messages for part in message["parts"]]


def test_before_init_a_decorated_function_just_runs() -> None:
    @llmobs.observe
    def double(n: int) -> int:
        return 2 * n

    assert double(4) == 8
    assert llmobs.current_ids() is None
    llmobs.current().set(output="nothing", usage={"input_tokens": 1})


def test_a_bare_decorator_makes_a_workflow_span(start: Start) -> None:
    otlp = start()

    @llmobs.observe
    def answer(question: str) -> str:
        return question.upper()

    assert answer("why") == "WHY"
    span = only(otlp)
    assert span.name == "invoke_workflow answer"
    assert span.attributes["gen_ai.workflow.name"] == "answer"
    assert (texts(span, "input"), texts(span, "output")) == (["why"], ["WHY"])
    assert span.status == 0
    assert span.resource["service.name"] == "shop"
    assert span.end_ns > span.start_ns


def test_name_docstring_and_signature_are_the_functions_own(start: Start) -> None:
    start()

    @llmobs.observe(kind="tool")
    def search(query: str, *, limit: int = 3) -> list[str]:
        """Search the shelves."""
        return [query] * limit

    assert search.__name__ == "search"
    assert search.__doc__ == "Search the shelves."
    assert list(inspect.signature(search).parameters) == ["query", "limit"]


def test_an_exception_passes_unchanged_and_marks_the_span(start: Start) -> None:
    otlp = start()
    raised = LookupError("nothing on the shelf")

    @llmobs.observe(kind="chat", model="m-1")
    def fail(prompt: str) -> str:
        raise raised

    with pytest.raises(LookupError) as caught:
        fail("x")
    assert caught.value is raised
    span = only(otlp)
    assert span.status == ERROR
    assert span.message == "nothing on the shelf"
    assert span.attributes["error.type"] == "LookupError"
    (event,) = otlp.events
    assert event.name == "gen_ai.client.operation.exception"
    assert (event.trace_id, event.span_id) == (span.trace_id, span.span_id)
    assert event.attributes["exception.type"] == "LookupError"
    stack = event.attributes["exception.stacktrace"]
    assert "in fail" in stack
    assert "observe.py" not in stack.replace("test_observe.py", "")


def test_a_coroutine_function_stays_one_and_its_children_find_their_parent(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat", model="m-1")
    async def ask(prompt: str) -> str:
        await asyncio.sleep(0.001)
        return prompt + "!"

    @llmobs.observe
    async def flow(n: int) -> list[str]:
        return list(await asyncio.gather(*(ask(str(i)) for i in range(n))))

    assert inspect.iscoroutinefunction(ask)
    assert asyncio.run(flow(3)) == ["0!", "1!", "2!"]
    llmobs.flush(10)
    parent = otlp.span("invoke_workflow flow")
    children = [span for span in otlp.spans if span.name == "chat m-1"]
    assert [child.parent_id for child in children] == [parent.span_id] * 3
    assert {child.trace_id for child in children} == {parent.trace_id}


def test_a_cancelled_coroutine_ends_its_span_as_an_error(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat")
    async def ask(prompt: str) -> None:
        await asyncio.sleep(60)

    async def cancel() -> None:
        task = asyncio.create_task(ask("x"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert only(otlp).attributes["error.type"] == "asyncio.exceptions.CancelledError"


def test_a_plain_function_that_returns_a_coroutine_is_timed_to_its_end(start: Start) -> None:
    otlp = start()

    async def later() -> str:
        await asyncio.sleep(0.02)
        return "done"

    @llmobs.observe(kind="chat")
    def ask(prompt: str) -> Any:
        return later()

    async def run() -> str:
        return str(await ask("x"))

    assert asyncio.run(run()) == "done"
    span = only(otlp)
    assert span.end_ns - span.start_ns > 15_000_000
    assert texts(span, "output") == ["done"]


def test_a_generator_passes_what_is_sent_thrown_and_returned(start: Start) -> None:
    otlp = start()

    @llmobs.observe
    def echo() -> Generator[Any, Any, str]:
        heard = yield "ready"
        while True:
            try:
                heard = yield heard * 2
            except ValueError as error:
                heard = f"caught {error}"
                yield heard
                return "end"

    assert inspect.isgeneratorfunction(echo)
    generator = echo()
    assert next(generator) == "ready"
    assert generator.send(4) == 8
    assert generator.throw(ValueError("v")) == "caught v"
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "end"
    assert only(otlp).status == 0


def test_a_streaming_chat_is_joined_timed_and_counted(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat", model="m-1", provider="openai")
    def stream(prompt: str) -> Iterator[Any]:
        for piece in ("Hel", "lo"):
            yield {"choices": [{"index": 0, "delta": {"content": piece}}]}
        yield {
            "id": "c-1",
            "model": "m-1-0613",
            "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2},
        }

    assert len(list(stream("hi"))) == 3
    span = only(otlp)
    assert texts(span, "output") == ["Hello"]
    assert span.attributes["gen_ai.request.stream"] is True
    assert 0 < span.attributes["gen_ai.response.time_to_first_chunk"] < 5
    assert span.attributes["gen_ai.usage.input_tokens"] == 7
    assert span.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert otlp.point("gen_ai.client.inference.time_per_output_chunk").count == 2


def test_a_generator_closed_half_way_runs_its_finally_and_keeps_what_came(start: Start) -> None:
    otlp = start()
    closed: list[bool] = []

    @llmobs.observe(kind="chat")
    def stream(prompt: str) -> Iterator[str]:
        try:
            yield "one "
            yield "two "
        finally:
            closed.append(True)

    generator = stream("x")
    assert next(generator) == "one "
    generator.close()  # type: ignore[attr-defined]
    assert closed == [True]
    span = only(otlp)
    assert texts(span, "output") == ["one "]
    assert span.status == 0


def test_a_forgotten_generator_ends_its_span(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat")
    def stream(prompt: str) -> Iterator[str]:
        yield "one"
        yield "two"

    generator = stream("x")
    next(generator)
    del generator
    gc.collect()
    assert texts(only(otlp), "output") == ["one"]


def test_an_error_within_a_generator_reaches_the_consumer_and_the_span(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat")
    def stream(prompt: str) -> Iterator[str]:
        yield "one"
        raise ConnectionError("cut")

    with pytest.raises(ConnectionError, match="cut"):
        list(stream("x"))
    span = only(otlp)
    assert span.attributes["error.type"] == "ConnectionError"
    assert texts(span, "output") == ["one"]


def test_a_generators_span_is_current_within_it_and_not_in_its_consumer(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="tool")
    def leaf(n: int) -> int:
        return n

    @llmobs.observe
    def produce() -> Iterator[int]:
        for n in range(2):
            yield leaf(n)

    for _ in produce():
        assert llmobs.current_ids() is None
        leaf(9)
    llmobs.flush(10)
    parent = otlp.span("invoke_workflow produce").span_id
    assert [s.parent_id == parent for s in otlp.spans if s.name == "execute_tool leaf"] == [
        True,
        False,
        True,
        False,
    ]


def test_a_session_within_a_generator_lasts_over_its_yields(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="tool")
    def leaf() -> None:
        return None

    @llmobs.observe
    def produce() -> Iterator[int]:
        with llmobs.session("inner"):
            yield 1
            leaf()
            yield 2
        leaf()

    with llmobs.session("outer"):
        for _ in produce():
            pass
    llmobs.flush(10)
    found = [s.attributes["session.id"] for s in otlp.spans if s.name == "execute_tool leaf"]
    assert found == ["inner", "outer"]


async def numbers(upto: int) -> AsyncIterator[int]:
    for n in range(upto):
        await asyncio.sleep(0)
        yield n


def test_an_async_generator_passes_everything_through(start: Start) -> None:
    otlp = start()
    closed: list[bool] = []

    @llmobs.observe(kind="chat")
    async def stream(prompt: str) -> AsyncGenerator[str, Any]:
        try:
            heard = yield "a"
            try:
                yield f"heard {heard}"
            except KeyError:
                yield "caught"
        finally:
            closed.append(True)

    async def run() -> list[str]:
        generator = stream("x")
        out = [await anext(generator), await generator.asend("b")]
        out.append(await generator.athrow(KeyError("k")))
        with pytest.raises(StopAsyncIteration):
            await anext(generator)
        return out

    assert inspect.isasyncgenfunction(stream)
    assert asyncio.run(run()) == ["a", "heard b", "caught"]
    assert closed == [True]
    assert texts(only(otlp), "output") == ["aheard bcaught"]


def test_an_async_generator_closed_or_forgotten_half_way_ends_its_span(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat")
    async def stream(prompt: str) -> AsyncGenerator[str, None]:
        async for n in numbers(100):
            yield str(n)

    async def run() -> None:
        closing = stream("x")
        await anext(closing)
        await closing.aclose()
        async for _ in stream("y"):
            break
        await asyncio.sleep(0)

    asyncio.run(run())
    gc.collect()
    llmobs.flush(10)
    assert [texts(span, "output") for span in otlp.spans] == [["0"], ["0"]]


class Client:
    calls = 0

    @llmobs.observe(kind="chat", model="m-1")
    def ask(self, prompt: str) -> str:
        return prompt + "?"

    @llmobs.observe(kind="tool")
    @classmethod
    def above(cls, n: int) -> int:
        cls.calls += 1
        return n

    @classmethod
    @llmobs.observe(kind="tool")
    def below(cls, n: int) -> int:
        return n + cls.calls

    @llmobs.observe(kind="tool")
    @staticmethod
    def static(n: int) -> int:
        return n

    def __call__(self, question: str) -> str:
        return question

    async def later(self, question: str) -> str:
        return question


def test_methods_of_all_kinds_are_observed_without_self(start: Start) -> None:
    otlp = start()
    client = Client()
    assert client.ask("hm") == "hm?"
    assert Client.above(1) == 1
    assert client.below(1) == 2
    assert client.static(3) == 3
    llmobs.flush(10)
    assert texts(otlp.span("chat m-1"), "input") == ["hm"]
    for name in ("above", "below", "static"):
        arguments = otlp.span(f"execute_tool {name}").attributes["gen_ai.tool.call.arguments"]
        assert list(json.loads(arguments)) == ["n"]


def test_callable_instances_partials_and_bound_methods_are_observed(start: Start) -> None:
    otlp = start()
    client = Client()
    client.__dict__["secret"] = "state"
    called = llmobs.observe(client)
    assert called("a") == "a"
    assert not hasattr(called, "secret")
    partial = llmobs.observe(kind="workflow", name="part")(functools.partial(client.later, "b"))
    assert asyncio.run(partial()) == "b"
    assert llmobs.observe(len)([1, 2]) == 2
    llmobs.flush(10)
    assert [s.name for s in otlp.spans] == [
        "invoke_workflow Client",
        "invoke_workflow part",
        "invoke_workflow len",
    ]


def test_a_clients_stream_object_stays_what_it_is_and_is_recorded(start: Start) -> None:
    otlp = start()

    class Stream:
        def __init__(self) -> None:
            self.left = ["a", "b"]
            self.closed = False

        def __iter__(self) -> Stream:
            return self

        def __next__(self) -> str:
            if not self.left:
                raise StopIteration
            return self.left.pop(0)

        def __enter__(self) -> Stream:
            return self

        def __exit__(self, *raised: object) -> None:
            self.closed = True

    @llmobs.observe(kind="chat")
    def ask(prompt: str) -> Stream:
        return Stream()

    with ask("x") as stream:
        assert isinstance(stream, Stream)
        assert list(stream) == ["a", "b"]
    assert stream.closed
    assert texts(only(otlp), "output") == ["ab"]


def test_an_async_clients_stream_object_is_recorded_too(start: Start) -> None:
    otlp = start()

    class Stream:
        left = 2
        closed = False

        def __aiter__(self) -> Stream:
            return self

        async def __anext__(self) -> str:
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return f"{self.left} "

        async def close(self) -> None:
            self.closed = True

    @llmobs.observe(kind="chat")
    async def ask(prompt: str) -> Stream:
        return Stream()

    async def run() -> None:
        whole = await ask("x")
        assert [piece async for piece in whole] == ["1 ", "0 "]
        cut = await ask("y")
        assert await anext(cut) == "1 "
        await cut.close()
        assert cut.closed

    asyncio.run(run())
    llmobs.flush(10)
    assert [texts(span, "output") for span in otlp.spans] == [["1 0 "], ["1 "]]


def test_what_is_changed_after_the_call_is_not_in_the_span(start: Start) -> None:
    otlp = start()
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    reply: dict[str, Any] = {"content": "b", "usage": {"input_tokens": 1, "output_tokens": 1}}

    @llmobs.observe(kind="chat")
    def ask(messages: list[dict[str, Any]]) -> dict[str, Any]:
        return reply

    result = ask(messages)
    assert result is reply
    messages[0]["content"][0]["text"] = "changed"
    messages.append({"role": "user", "content": "more"})
    reply["content"] = "changed"
    span = only(otlp)
    assert (texts(span, "input"), texts(span, "output")) == (["a"], ["b"])


def test_request_settings_and_the_response_are_read(start: Start) -> None:
    otlp = start()

    class Usage:
        __slots__ = ("completion_tokens", "prompt_tokens")

        def __init__(self) -> None:
            self.prompt_tokens = 10
            self.completion_tokens = 4

    @llmobs.observe(kind="chat", provider="openai")
    def ask(prompt: str, model: str = "m-1", temperature: float = 1, **rest: Any) -> dict[str, Any]:
        return {"id": "r-1", "model": "m-1-x", "text": "yes", "usage": Usage()}

    ask("hm", max_tokens=5, stop=["\n"], stream=False, unknown=object(), system="Be brief.")
    a = only(otlp).attributes
    assert a["gen_ai.request.model"] == "m-1"
    assert a["gen_ai.request.temperature"] == 1.0
    assert isinstance(a["gen_ai.request.temperature"], float)
    assert a["gen_ai.request.max_tokens"] == 5
    assert a["gen_ai.request.stop_sequences"] == ["\n"]
    assert "gen_ai.request.stream" not in a
    assert a["gen_ai.response.id"] == "r-1"
    assert a["gen_ai.response.model"] == "m-1-x"
    assert (a["gen_ai.usage.input_tokens"], a["gen_ai.usage.output_tokens"]) == (10, 4)
    assert json.loads(a["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be brief."}]


def test_what_is_set_by_hand_wins(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat", model="m-1")
    def ask(prompt: str) -> str:
        llmobs.current().set(
            input="really asked",
            output="really answered",
            usage=llmobs.Usage(input_tokens=9, output_tokens=3, cache_read_tokens=4),
            model="m-2",
            provider="groq",
            response_id="r-7",
            finish_reason="length",
            attributes={"shop.aisle": 3},
        )
        return "x"

    assert ask("y") == "x"
    span = only(otlp)
    a = span.attributes
    assert (texts(span, "input"), texts(span, "output")) == (["really asked"], ["really answered"])
    assert a["gen_ai.usage.input_tokens"] == 9
    assert a["gen_ai.usage.cache_read.input_tokens"] == 4
    assert a["gen_ai.provider.name"] == "groq"
    assert a["gen_ai.response.model"] == "m-2"
    assert a["gen_ai.response.finish_reasons"] == ["length"]
    assert a["shop.aisle"] == 3


def test_a_retrieval_shows_query_and_documents(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="retrieval", name="shelf")
    def find(query: str, top_k: int = 2) -> list[Any]:
        return [{"id": "d1", "score": 0.5, "note": None}, "plain"]

    find("cats")
    span = only(otlp)
    assert span.name == "retrieval shelf"
    assert span.kind == CLIENT
    assert span.attributes["gen_ai.retrieval.query.text"] == "cats"
    assert span.attributes["gen_ai.retrieval.top_k"] == 2
    assert json.loads(span.attributes["gen_ai.retrieval.documents"]) == [
        {"id": "d1", "score": 0.5},
        {"content": "plain"},
    ]


def test_an_agent_counts_its_own_calls_of_models_and_tools(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat", model="m")
    def ask(prompt: str) -> str:
        return "x"

    @llmobs.observe(kind="tool")
    def look() -> int:
        return 1

    @llmobs.observe(kind="agent")
    def helper() -> None:
        ask("sub")

    @llmobs.observe(kind="agent")
    def boss() -> None:
        ask("a")
        ask("b")
        look()
        helper()

    boss()
    llmobs.flush(10)
    calls = "gen_ai.invoke_agent.inference_calls"
    assert otlp.point(calls, gen_ai__agent__name="boss").total == 2
    assert otlp.point(calls, gen_ai__agent__name="helper").total == 1
    assert otlp.point("gen_ai.invoke_agent.tool_calls", gen_ai__agent__name="boss").total == 1
    assert otlp.span("execute_tool look").attributes["gen_ai.agent.name"] == "boss"


def test_a_span_can_be_made_of_what_is_no_function(start: Start) -> None:
    otlp = start()
    with llmobs.span("tool", name="shell", input={"command": "ls"}) as span:
        span.set(output={"files": 2})
    with pytest.raises(OSError, match="gone"), llmobs.span("agent", name="a"):
        raise OSError("gone")
    llmobs.flush(10)
    tool = otlp.span("execute_tool shell").attributes
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"command": "ls"}
    assert json.loads(tool["gen_ai.tool.call.result"]) == {"files": 2}
    assert otlp.span("invoke_agent a").attributes["error.type"] == "OSError"


def test_spans_of_all_threads_are_numbered_without_gaps(start: Start) -> None:
    otlp = start()

    @llmobs.observe
    def work(n: int) -> int:
        return n

    threads = [threading.Thread(target=lambda: [work(n) for n in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    llmobs.flush(10)
    numbers = sorted(span.attributes["llmobs.sequence"] for span in otlp.spans)
    assert numbers == list(range(1600))
    assert len({span.span_id for span in otlp.spans}) == 1600
    assert llmobs.status().exported == 1600


def test_objects_that_misbehave_cost_their_own_text_alone(start: Start) -> None:
    otlp = start()

    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    rude = Rude()

    @llmobs.observe(kind="tool")
    def take(thing: Any) -> Any:
        return thing

    @llmobs.observe(kind="chat")
    def fail(prompt: str) -> str:
        class WorseError(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no str")

        raise WorseError

    assert take(rude) is rude
    loop: list[Any] = []
    loop.append(loop)
    assert take(loop) is loop
    with pytest.raises(Exception):  # noqa: B017 - a class of the function's own
        fail("x")
    llmobs.flush(10)
    assert len(otlp.spans) == 3


def test_wrong_use_is_told_at_decoration() -> None:
    with pytest.raises(ConfigurationError, match="chain"):
        llmobs.observe(kind="chain")  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="some"):
        llmobs.observe(capture_content="some")  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="class"):
        llmobs.observe(Client)


class NotGiven:
    """As the clients of providers mark what was not said."""

    def __bool__(self) -> bool:
        return False


@dataclass
class Sly:
    """Answers for itself to whoever asks for what it hasn't got."""

    text: str = "x"

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ({"temperature": NotGiven(), "max_tokens": NotGiven(), "model": NotGiven()}, "y"),
        ({"temperature": "warm", "max_tokens": float("inf")}, "y"),
        ({}, {"content": "y", "tool_calls": 2, "usage": {"input_tokens": float("inf")}}),
        ({"prompt": [Sly()]}, "y"),
        ({"prompt": nested(1500)}, "y"),
        ({"prompt": [10**5000]}, "y"),
        ({"prompt": "a\ud800b\0"}, "y\udfff"),
    ],
)
def test_odd_arguments_and_results_cost_no_span(
    start: Start, arguments: dict[str, Any], result: Any
) -> None:
    otlp = start()

    @llmobs.observe(kind="chat")
    def ask(
        prompt: Any = "p", model: Any = "m", temperature: Any = 0.5, max_tokens: Any = 7
    ) -> Any:
        return result

    assert ask(**arguments) == result
    assert llmobs.flush(10)
    a = only(otlp).attributes
    assert a["gen_ai.output.messages"]
    for name in ("temperature", "max_tokens"):
        assert (f"gen_ai.request.{name}" in a) is (name not in arguments)
    assert a.get("gen_ai.request.model") == (None if "model" in arguments else "m")


def test_closing_from_another_context_is_silent_and_ends_the_span(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    otlp = start()

    @llmobs.observe
    async def hang() -> None:
        with llmobs.session("s-1"):
            await asyncio.Event().wait()

    @llmobs.observe
    async def stream() -> AsyncIterator[int]:
        with llmobs.session("s-2"), llmobs.span("tool", name="inner"):
            yield 1
            yield 2

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(hang())
        pieces = stream()
        assert await anext(pieces) == 1
        del pieces
        gc.collect()
        await asyncio.sleep(0.01)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(main())
    loop.close()
    del task
    gc.collect()
    llmobs.flush(10)
    names = ["execute_tool inner", "invoke_workflow hang", "invoke_workflow stream"]
    assert sorted(span.name for span in otlp.spans) == names
    assert "detach" not in caplog.text


def test_a_generator_closed_in_another_thread_ends_its_span(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    otlp = start()

    @llmobs.observe
    def stream() -> Iterator[int]:
        with llmobs.session("s"):
            yield from range(3)

    pieces = [stream()]
    assert next(pieces[0]) == 0
    thread = threading.Thread(target=pieces.clear)
    thread.start()
    thread.join()
    llmobs.flush(10)
    assert len(otlp.spans) == 1
    assert "detach" not in caplog.text


def test_a_generator_that_nobody_starts_leaves_its_call(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat", model="m")
    def ask(prompt: str) -> Iterator[str]:
        return (piece for piece in ["a", "b"])

    ask("x")
    gc.collect()
    llmobs.flush(10)
    assert only(otlp).name == "chat m"


def test_a_chat_that_wraps_another_by_way_of_a_workflow_counts_once(start: Start) -> None:
    otlp = start()
    answer = {"text": "y", "usage": {"input_tokens": 5, "output_tokens": 2}}

    @llmobs.observe(kind="chat", model="inner")
    def ask(prompt: str) -> dict[str, Any]:
        return answer

    @llmobs.observe
    def retry(prompt: str) -> dict[str, Any]:
        return ask(prompt)

    @llmobs.observe(kind="chat", model="outer")
    def wrap(prompt: str) -> dict[str, Any]:
        return retry(prompt)

    @llmobs.observe(kind="tool")
    def look(prompt: str) -> dict[str, Any]:
        return ask(prompt)

    @llmobs.observe(kind="chat", model="own")
    def talk(prompt: str) -> dict[str, Any]:
        look(prompt)  # a tool that asks a model itself: two calls
        return answer

    @llmobs.observe(kind="agent")
    def boss() -> None:
        wrap("x")
        talk("x")

    boss()
    llmobs.flush(10)
    names = sorted(span.name for span in otlp.spans)
    assert names.count("chat inner") == 2
    assert "chat own" in names
    assert "chat outer" not in names
    total = sum(
        point.total
        for point in otlp.points
        if point.name == "gen_ai.client.inference.usage.input_tokens"
    )
    assert total == 15
    assert otlp.point("gen_ai.invoke_agent.inference_calls").total == 3


def test_a_chain_of_calls_that_begin_each_other_is_not_kept_alive(start: Start) -> None:
    start()
    alive: list[weakref.ref[Any]] = []

    @llmobs.observe(kind="agent")
    async def step(left: int) -> None:
        llmobs.current().fail(ValueError("x"))
        alive.append(weakref.ref(llmobs.current()))
        if left:
            task = asyncio.create_task(step(left - 1))
            tasks.append(task)

    async def main() -> None:
        await step(20)
        while tasks:
            await tasks.pop(0)

    tasks: list[asyncio.Task[None]] = []
    asyncio.run(main())
    assert llmobs.flush(10)
    gc.collect()
    assert sum(ref() is not None for ref in alive) <= 1


def test_the_innermost_frames_of_a_deep_failure_are_told(start: Start) -> None:
    otlp = start()

    @llmobs.observe(kind="chat", model="m")
    def fail(prompt: str) -> None:
        def descend(left: int) -> None:
            if left:
                descend(left - 1)
            bottom()

        def bottom() -> None:
            raise ValueError("x")

        descend(100)

    with pytest.raises(ValueError, match="x"):
        fail("p")
    llmobs.flush(10)
    assert "in bottom" in otlp.events[0].attributes["exception.stacktrace"]


def test_a_message_that_may_not_leave_is_not_even_asked_for(start: Start) -> None:
    otlp = start(capture_content="metadata")
    asked = []

    class DearError(Exception):
        def __str__(self) -> str:
            asked.append(1)
            return "dear"

    @llmobs.observe
    def fail() -> None:
        raise DearError

    with pytest.raises(DearError):
        fail()
    llmobs.flush(10)
    assert len(otlp.spans) == 1
    assert asked == []
