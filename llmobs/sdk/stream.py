"""Answers that come in pieces: generators and clients' stream objects, recorded as they pass by."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, Final

from opentelemetry import context as context_api
from opentelemetry.context import Context

from llmobs.sdk.batch import Batch
from llmobs.sdk.content import freeze
from llmobs.sdk.guarded import guarded
from llmobs.sdk.span import LiveSpan, detach
from llmobs.sdk.usage import provider_of_module

__all__ = ["Recorder", "drive", "drive_async", "observed_stream"]

# What is kept of one stream; the last chunk is always kept, it has the usage.
MAX_CHUNKS: Final = 20_000
MAX_BYTES: Final = 4_000_000


class Recorder:
    """Notes the chunks of one stream on its span, and ends the span with the stream.

    The span ends when the stream is exhausted, fails, is closed, or is forgotten half-way: then
    this object goes with the last frame that knew it.
    """

    __slots__ = ("_is_last_extra", "_size", "span")

    def __init__(self, span: LiveSpan) -> None:
        self.span = span
        if span.spec.kind == "batch":
            span.batch = Batch()
        span.chunks = []
        span.chunk_ns = []
        self._size = 0
        self._is_last_extra = False

    def note(self, chunk: Any) -> None:
        """Keep one chunk and when it came."""
        span = self.span
        if span.batch is not None:  # as many as there are: what is not counted would be free
            span.batch.add(freeze(chunk)[0])
            return
        chunks, times = span.chunks, span.chunk_ns
        if chunks is None or times is None or span.end_ns:
            return
        if not times and span.provider is None:
            span.provider = provider_of_module(type(chunk).__module__)
        if len(times) < MAX_CHUNKS:
            times.append(span.now_ns())
        kept, size = freeze(chunk)
        if len(chunks) < MAX_CHUNKS and self._size < MAX_BYTES:
            chunks.append(kept)
            self._size += size
            span.size += size
        elif not isinstance(kept, str):
            if self._is_last_extra:
                chunks.pop()
            chunks.append(kept)
            self._is_last_extra = True

    def fail(self, error: BaseException) -> None:
        """End the span with what the stream raised."""
        self.span.finish_failed(error)

    def finish(self) -> None:
        """End the span."""
        with guarded("end a stream"):
            self.span.finish()

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self.finish()


def drive(
    generator: Generator[Any, Any, Any], recorder: Recorder, context: Context
) -> Generator[Any, Any, Any]:
    """Run a generator so that its span is current within it, and not in its consumer between.

    What is sent, thrown and returned passes through unchanged.
    """
    span = recorder.span
    sent: Any = None
    thrown: BaseException | None = None
    while True:
        token = context_api.attach(context)
        try:
            item = generator.send(sent) if thrown is None else generator.throw(thrown)
        except StopIteration as stop:
            with guarded("end a stream"):
                if stop.value is not None and not span.chunks:
                    span.output, span.chunks = freeze(stop.value)[0], None
            recorder.finish()
            return stop.value
        except GeneratorExit:
            recorder.finish()
            raise
        except BaseException as error:
            recorder.fail(error)
            raise
        finally:
            # The generator may have changed the context, as a session within it does.
            context = context_api.get_current()
            detach(token)
        with guarded("note a chunk"):
            recorder.note(item)
        sent = thrown = None
        try:
            sent = yield item
        except GeneratorExit:
            _close(generator, context)
            recorder.finish()
            raise
        except BaseException as error:
            thrown = error


def _close(generator: Generator[Any, Any, Any], context: Context) -> None:
    token = context_api.attach(context)
    try:
        generator.close()
    finally:
        detach(token)


async def drive_async(
    generator: AsyncGenerator[Any, Any], recorder: Recorder, context: Context
) -> AsyncGenerator[Any, Any]:
    """Run an async generator as `drive` does a plain one."""
    sent: Any = None
    thrown: BaseException | None = None
    while True:
        token = context_api.attach(context)
        try:
            step = generator.asend(sent) if thrown is None else generator.athrow(thrown)
            item = await step
        except StopAsyncIteration:
            recorder.finish()
            return
        except GeneratorExit:
            recorder.finish()
            raise
        except BaseException as error:
            recorder.fail(error)
            raise
        finally:
            context = context_api.get_current()
            detach(token)
        with guarded("note a chunk"):
            recorder.note(item)
        sent = thrown = None
        try:
            sent = yield item
        except GeneratorExit:
            token = context_api.attach(context)
            try:
                await generator.aclose()
            finally:
                detach(token)
            recorder.finish()
            raise
        except BaseException as error:
            thrown = error


class _Observed:
    """Stands in for a client's stream object: the same to all who use it, chunks noted in passing.

    ``isinstance`` and attributes answer as the object's own.
    """

    def __init__(self, stream: Any, recorder: Recorder) -> None:
        object.__setattr__(self, "_llmobs_stream", stream)
        object.__setattr__(self, "_llmobs_recorder", recorder)

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":  # what isinstance asks
            return object.__getattribute__(self, "_llmobs_stream").__class__
        return object.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llmobs_stream, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._llmobs_stream, name, value)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            chunk = next(self._llmobs_stream)
        except StopIteration:
            self._llmobs_recorder.finish()
            raise
        except BaseException as error:
            self._llmobs_recorder.fail(error)
            raise
        with guarded("note a chunk"):
            self._llmobs_recorder.note(chunk)
        return chunk

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            chunk = await self._llmobs_stream.__anext__()
        except StopAsyncIteration:
            self._llmobs_recorder.finish()
            raise
        except BaseException as error:
            self._llmobs_recorder.fail(error)
            raise
        with guarded("note a chunk"):
            self._llmobs_recorder.note(chunk)
        return chunk

    def __enter__(self) -> Any:
        self._llmobs_stream.__enter__()
        return self

    def __exit__(self, *raised: Any) -> Any:
        self._llmobs_recorder.finish()
        return self._llmobs_stream.__exit__(*raised)

    async def __aenter__(self) -> Any:
        await self._llmobs_stream.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> Any:
        self._llmobs_recorder.finish()
        return await self._llmobs_stream.__aexit__(*raised)

    def close(self) -> Any:
        self._llmobs_recorder.finish()
        return self._llmobs_stream.close()

    def aclose(self) -> Any:
        self._llmobs_recorder.finish()
        return self._llmobs_stream.aclose()


def observed_stream(result: Any, span: LiveSpan) -> Any:
    """Return what stands in for a client's stream object; the span ends with the stream."""
    return _Observed(result, Recorder(span))
