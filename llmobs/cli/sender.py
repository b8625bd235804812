"""Sends recorded export requests through the front door of a server."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from llmobs.cli.recorded import JSON, Recorded
from llmobs.errors import ConfigurationError, LlmobsError

if TYPE_CHECKING:  # the command line starts without Arrow
    from llmobs.records import Signal

__all__ = ["Answer", "Sender"]

# OTLP's transient answers; all others say that the request itself is refused.
_TRY_AGAIN: Final = frozenset({429, 502, 503, 504})
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_TIMEOUT_S: Final = 30.0
# What a server calls the items of a request that it did not take.
_REJECTED: Final[dict[Signal, str]] = {
    "traces": "rejectedSpans",
    "logs": "rejectedLogRecords",
    "metrics": "rejectedDataPoints",
}


class Answer(NamedTuple):
    """What a server said of a request for good.

    Attributes:
        refused: Why it took nothing of it; "": it took it.
        n_rejected: Spans, log records or data points that it left out (`partial_success`).
        message: What it says of these, or a warning.
        n_retries: How often the request was sent again.
    """

    refused: str
    n_rejected: int
    message: str
    n_retries: int


class Sender:
    """Sends export requests to one server, again and again until it takes or refuses them.

    Threads may share it: each has a connection of its own.

    Args:
        endpoint: Address of the OTLP/HTTP port, without ``/v1/…``.
        key: An ingest key, if the server wants one.
        patience_s: How long a server may keep saying "later", or be away.

    Raises:
        ConfigurationError: The endpoint is no http or https address.
    """

    def __init__(self, endpoint: str, *, key: str | None = None, patience_s: float = 300) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError(
                f"endpoint {endpoint!r} is no address; use one like http://127.0.0.1:4318"
            )
        self._endpoint, self._is_https = endpoint, parts.scheme == "https"
        self._place, self._prefix = parts.netloc, parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._patience_s = patience_s
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []
        self._stop = threading.Event()

    def check(self) -> None:
        """Make sure that somebody answers at all.

        Raises:
            LlmobsError: Nobody does.
        """
        connection = self._connect()
        try:
            connection.request("GET", "/healthz")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            raise LlmobsError(
                f"no server at {self._endpoint} ({error}); start one with `llmobs up`, or name "
                "it with --endpoint"
            ) from error
        finally:
            connection.close()

    def stop(self) -> None:
        """Let every request that waits for its next try give up."""
        self._stop.set()

    def close(self) -> None:
        """Close the connections; no request may be in flight."""
        for connection in self._connections:
            connection.close()

    def send(self, request: Recorded) -> Answer:
        """Send one request until it is answered for good.

        Raises:
            LlmobsError: The server's patience for "later" is over, or `stop` was called.
        """
        deadline = time.monotonic() + self._patience_s
        wait_s, n_retries = _FIRST_WAIT_S, 0
        while True:
            status, body, reason, retry_after_s = self._try(request)
            if status == 200:
                return Answer("", *_partial_success(request, body), n_retries)
            if status is not None and status not in _TRY_AGAIN:
                return Answer(f"{status}: {reason}", 0, "", n_retries)
            pause_s = max(wait_s, retry_after_s)
            if time.monotonic() + pause_s > deadline or self._stop.wait(pause_s):
                raise LlmobsError(
                    f"{self._endpoint} did not take a request within {self._patience_s:g} s "
                    f"({reason}); run the same command again later with --resume"
                )
            wait_s, n_retries = min(wait_s * 2, _LONGEST_WAIT_S), n_retries + 1

    def _try(self, request: Recorded) -> tuple[int | None, bytes, str, float]:
        """Return status, body, reason and seconds to wait; no status where no answer came."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        try:
            connection.request(
                "POST",
                f"{self._prefix}/v1/{request.signal}",
                request.body,
                {**self._headers, "Content-Type": request.content_type},
            )
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()  # it is opened anew by the next request
            return None, b"", str(error) or type(error).__name__, 0.0
        retry_after_s = _seconds(answer.getheader("Retry-After"))
        return answer.status, body, _reason(answer, body), retry_after_s

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._is_https else http.client.HTTPConnection
        connection = kind(self._place, timeout=_TIMEOUT_S)
        self._connections.append(connection)
        return connection


def _reason(answer: http.client.HTTPResponse, body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])[:300]
    except (ValueError, KeyError, TypeError):  # protobuf's Status, or a proxy's page
        return answer.reason


def _seconds(retry_after: str | None) -> float:
    """Read Retry-After; as a date it counts as none, and our own pace holds."""
    return float(retry_after) if retry_after and retry_after.isdigit() else 0.0


def _partial_success(request: Recorded, body: bytes) -> tuple[int, str]:
    """Return how many items a server left out of a request that it took, and its words.

    An answer that can't be read is a proxy's; its status says that the request was taken.
    """
    if not body:
        return 0, ""
    if request.content_type != JSON:
        return _of_protobuf(body)
    try:
        said = json.loads(body).get("partialSuccess", {})
        return int(said.get(_REJECTED[request.signal], 0)), str(said.get("errorMessage", ""))
    except (ValueError, AttributeError, TypeError):
        return 0, ""


def _of_protobuf(body: bytes) -> tuple[int, str]:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        # The answers to all three signals are the same on the wire.
        said = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:
        return 0, ""
    return said.rejected_spans, said.error_message
