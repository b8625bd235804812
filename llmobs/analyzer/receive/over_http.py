"""OTLP and feedback over HTTP: an ASGI application without a framework, fast with small ones."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

from llmobs.access import KeyOwner, Role
from llmobs.analyzer.receive.answer import Outcome, RefusedError
from llmobs.analyzer.receive.feedback import MAX_FEEDBACK_BYTES
from llmobs.analyzer.receive.intake import Intake, Request, Reservation
from llmobs.analyzer.receive.metrics import CONTENT_TYPE
from llmobs.analyzer.receive.unpack import is_known_encoding
from llmobs.records import Signal

__all__ = ["HttpApp"]

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

_PATHS: Final[Mapping[str, Signal]] = {
    "/v1/traces": "traces",
    "/v1/logs": "logs",
    "/v1/metrics": "metrics",
}
_FEEDBACK_PATH: Final = "/v1/feedback"
_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"

# Bodies that have no more bytes than this unpacked are parsed on the event loop: that takes no
# longer than the way to another thread and back. JSON takes about ten times as long a byte.
_INLINE_PROTOBUF_BYTES: Final = 64 << 10
_INLINE_JSON_BYTES: Final = 4 << 10
_N_PARSERS: Final = 2

# What a browser's OTLP exporter may send; two hours is the longest Chrome keeps an answer.
_CORS_HEADERS: Final = "content-type, content-encoding, authorization, x-api-key, api-key"
_CORS_MAX_AGE_S: Final = 7200


class _Disconnected(Exception):  # noqa: N818 - not an error of ours
    """The sender has gone; nobody waits for an answer."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _Acknowledgements:
    """Carries results from the log's thread to the event loop, with one wake-up for many."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._results: deque[tuple[asyncio.Future[Exception | None], Exception | None]] = deque()
        self._woken = False

    def resolve(self, future: asyncio.Future[Exception | None], error: Exception | None) -> None:
        """Set a future's result; any thread may call this."""
        self._results.append((future, error))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._woken = False  # first: what is appended from now on wakes the loop again
        while self._results:
            future, error = self._results.popleft()
            if not future.done():  # it is when the sender was told to try again
                future.set_result(error)


class HttpApp:
    """The ASGI application of port 4318; all of it runs on one event loop."""

    def __init__(self, intake: Intake, *, cors_origins: Collection[str] = ()) -> None:
        """Take what handles requests.

        Args:
            intake: Shared with the gRPC server.
            cors_origins: Origins whose pages may send, such as ``https://app.example.com``;
                ``*`` is any. A request with another Origin is refused.
        """
        self._intake = intake
        self._cors_origins = frozenset(cors_origins)
        self._parsers = ThreadPoolExecutor(_N_PARSERS, thread_name_prefix="llmobs-parse")
        self._acknowledgements: _Acknowledgements | None = None

    def close(self) -> None:
        """Let the threads go; no request may be in flight."""
        self._parsers.shutdown()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in scope["headers"]}
        signal = _PATHS.get(scope["path"])
        try:
            if signal is not None:
                keep = partial(self._keep, signal, headers, receive)
                answer = await self._take(signal, scope["method"], headers, keep)
            elif scope["path"] == _FEEDBACK_PATH:
                keep = partial(self._keep_feedback, headers, receive)
                answer = await self._take("feedback", scope["method"], headers, keep)
            else:
                answer = self._side_door(scope)
        except _Disconnected:
            return
        head = [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", b"%d" % len(answer.body)),
            *answer.headers,
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": head})
        await send({"type": "http.response.body", "body": answer.body})

    # Export requests and feedback.

    async def _take(
        self,
        signal: Signal | Literal["feedback"],
        method: str,
        headers: Mapping[str, str],
        keep: Callable[[], Awaitable[None]],
    ) -> _Answer:
        started = time.perf_counter()
        origin = headers.get("origin")
        outcome = Outcome.ACCEPTED
        is_json = _media_type(headers) != _PROTOBUF
        try:
            self._check_origin(origin)
            if method == "OPTIONS" and origin is not None:
                return _preflight(origin)
            _check_method(method)
            await keep()
            answer = _Answer(200, _JSON if is_json else _PROTOBUF, b"{}" if is_json else b"")
        except RefusedError as refused:
            outcome = refused.outcome
            answer = _refusal(refused, is_json=is_json)
        self._intake.metrics.count("http", signal, outcome, time.perf_counter() - started)
        if origin is None or outcome is Outcome.FORBIDDEN:
            return answer
        return replace(answer, headers=(*answer.headers, *_cors(origin)))

    async def _keep(self, signal: Signal, headers: Mapping[str, str], receive: _Receive) -> None:
        owner = self._intake.admit(headers)
        encoding, is_json = _formats(headers)
        with self._intake.reservation() as reservation:
            packed = await self._body(headers, receive, reservation)
            request = await self._read(signal, owner, packed, encoding, is_json)
        if request.content:
            await self._append(request)

    async def _keep_feedback(self, headers: Mapping[str, str], receive: _Receive) -> None:
        owner = self._intake.admit(headers, Role.FEEDBACK)
        encoding, is_json = _formats(headers)
        if not is_json:
            raise RefusedError(Outcome.UNSUPPORTED, f"feedback is sent as {_JSON}")
        with self._intake.reservation(MAX_FEEDBACK_BYTES) as reservation:
            packed = await self._body(headers, receive, reservation)
            request = await asyncio.get_running_loop().run_in_executor(
                self._parsers, self._intake.read_feedback, owner, packed, encoding
            )
        await self._append(request)

    async def _body(
        self, headers: Mapping[str, str], receive: _Receive, reservation: Reservation
    ) -> bytes:
        # The HTTP parser keeps a body to its Content-Length, unless it comes in chunks.
        declared = None if "transfer-encoding" in headers else headers.get("content-length")
        if declared is not None:
            reservation.grow(int(declared))
        parts: list[bytes] = []
        more = True
        try:
            async with asyncio.timeout(self._intake.limits.read_timeout_s):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Disconnected
                    part, more = message.get("body", b""), message.get("more_body", False)
                    if declared is None:
                        reservation.grow(len(part))
                    parts.append(part)
        except TimeoutError as error:
            raise RefusedError(
                Outcome.TOO_SLOW,
                f"the body did not arrive within {self._intake.limits.read_timeout_s:g} s",
            ) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read(
        self, signal: Signal, owner: KeyOwner, packed: bytes, encoding: str, is_json: bool
    ) -> Request:
        read = partial(self._intake.read, signal, owner, packed, encoding, is_json)
        small = _INLINE_JSON_BYTES if is_json else _INLINE_PROTOBUF_BYTES
        if len(packed) <= small:
            try:
                return read(max_bytes=small)
            except RefusedError as refused:  # a few bytes of gzip may hold very many
                if refused.outcome is not Outcome.TOO_LARGE:
                    raise
        return await asyncio.get_running_loop().run_in_executor(self._parsers, read)

    async def _append(self, request: Request) -> None:
        loop = asyncio.get_running_loop()
        if self._acknowledgements is None:
            self._acknowledgements = _Acknowledgements(loop)
        future: asyncio.Future[Exception | None] = loop.create_future()
        done = partial(self._acknowledgements.resolve, future)
        self._intake.sink.append(request.signal, request.content, done)
        try:
            async with asyncio.timeout(self._intake.limits.answer_timeout_s):
                error = await future
        except TimeoutError as late:
            raise self._intake.late() from late
        self._intake.settle(request, error)

    # Browsers.

    def _check_origin(self, origin: str | None) -> None:
        if origin is None or "*" in self._cors_origins or origin in self._cors_origins:
            return
        raise RefusedError(
            Outcome.FORBIDDEN,
            f"pages of {origin[:200]!r} may not send here; allow the origin in the settings",
        )

    # Everything else.

    def _side_door(self, scope: _Message) -> _Answer:
        path, method = scope["path"], scope["method"]
        if path in ("/healthz", "/readyz", "/metrics"):
            if method not in ("GET", "HEAD"):
                refused = RefusedError(Outcome.METHOD, f"{path} takes GET")
                return _refusal(refused, is_json=True, allow=b"GET, HEAD")
            return self._report(path)
        self._intake.metrics.count("http", "none", Outcome.NOT_FOUND, 0.0)
        return _refusal(
            RefusedError(
                Outcome.NOT_FOUND,
                f"nothing is at {path[:200]!r}; OTLP goes to {', '.join(_PATHS)} "
                "(OTEL_EXPORTER_OTLP_ENDPOINT takes the address without them), feedback to "
                f"{_FEEDBACK_PATH}",
            ),
            is_json=True,
        )

    def _report(self, path: str) -> _Answer:
        if path == "/metrics":
            return _Answer(200, CONTENT_TYPE, self._intake.metrics.text())
        problem = self._intake.sink.problem() if path == "/readyz" else None
        return _Answer(503 if problem else 200, _TEXT, f"{problem or 'ok'}\n".encode())


def _check_method(method: str) -> None:
    if method != "POST":
        raise RefusedError(Outcome.METHOD, f"{method[:20]} is not possible here; send by POST")


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _formats(headers: Mapping[str, str]) -> tuple[str, bool]:
    """Return the Content-Encoding, and whether the content is JSON."""
    media_type = _media_type(headers)
    if media_type not in (_PROTOBUF, _JSON):
        raise RefusedError(
            Outcome.UNSUPPORTED,
            f"Content-Type {media_type[:100]!r} is not taken; send {_PROTOBUF} or {_JSON}",
        )
    encoding = headers.get("content-encoding", "").strip().lower()
    if not is_known_encoding(encoding):
        raise RefusedError(
            Outcome.UNSUPPORTED,
            f"Content-Encoding {encoding[:100]!r} is not taken; send gzip, deflate or none",
        )
    return encoding, media_type == _JSON


def _refusal(refused: RefusedError, *, is_json: bool, allow: bytes = b"POST") -> _Answer:
    headers: list[tuple[bytes, bytes]] = []
    if refused.outcome is Outcome.METHOD:
        headers.append((b"allow", allow))
    if refused.outcome is Outcome.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    if refused.retry_after_whole_s is not None:
        headers.append((b"retry-after", b"%d" % refused.retry_after_whole_s))
    return _Answer(
        refused.outcome.http_status,
        _JSON if is_json else _PROTOBUF,
        refused.to_json() if is_json else refused.to_protobuf(),
        tuple(headers),
    )


def _cors(origin: str) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"retry-after"),
        (b"vary", b"origin"),
    )


def _preflight(origin: str) -> _Answer:
    return _Answer(
        200,
        _TEXT,
        b"",
        (
            *_cors(origin),
            (b"access-control-allow-methods", b"POST"),
            (b"access-control-allow-headers", _CORS_HEADERS.encode()),
            (b"access-control-max-age", b"%d" % _CORS_MAX_AGE_S),
        ),
    )
