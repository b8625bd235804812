"""Commands that move telemetry: `llmobs replay` sends recorded OTLP through the front door."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from llmobs.errors import BadRequestError, ConfigurationError, LlmobsError

__all__ = ["Recorded", "Sender", "read_recorded", "replay"]

_File: TypeAlias = gzip.GzipFile | io.BufferedReader
_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
# The field of an export request in JSON that tells what it holds. In protobuf all three look alike.
_SIGNALS: Final = {
    "resourceSpans": "traces",
    "resourceLogs": "logs",
    "resourceMetrics": "metrics",
}
_GZIP_MAGIC: Final = b"\x1f\x8b"
# OTLP's transient answers; all others say that the request itself is refused.
_TRY_AGAIN: Final = frozenset({429, 502, 503, 504})
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_TIMEOUT_S: Final = 30.0
# A length above this is no length: the file is something else.
_MAX_REQUEST_BYTES: Final = 128 << 20


class Recorded(NamedTuple):
    """One export request of a file.

    Attributes:
        signal: ``traces``, ``logs`` or ``metrics``.
        content_type: Of `body`.
        body: As it was recorded.
        end: Where it ends in the file, in bytes (of what is unpacked).
    """

    signal: str
    content_type: str
    body: bytes
    end: int


def read_recorded(path: Path, signal: str) -> Iterator[Recorded]:
    """Read a file as the Collector's file exporter writes it, one request at a time.

    Either one JSON request a line, or protobuf with its length in four bytes before each
    (big-endian); the file may be packed with gzip.

    Args:
        path: The file.
        signal: What a protobuf file holds; JSON says so itself.

    Raises:
        BadRequestError: The file holds something else, or ends in the middle of a request.
        OSError: It can't be read.
    """
    with path.open("rb") as packed:
        is_gzip = packed.read(2) == _GZIP_MAGIC
    with _open(path, is_gzip=is_gzip) as file:
        is_json = file.peek(1)[:1] in (b"{", b"\n")
        try:
            yield from _json_lines(path, file) if is_json else _messages(path, file, signal)
        except (EOFError, zlib.error) as error:
            raise BadRequestError(f"{str(path)!r} is broken as a gzip file: {error}") from error


def _open(path: Path, *, is_gzip: bool) -> _File:
    return gzip.open(path) if is_gzip else path.open("rb")


def _json_lines(path: Path, file: _File) -> Iterator[Recorded]:
    end = 0
    for number, line in enumerate(file, start=1):
        end += len(line)
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            signal = next(_SIGNALS[name] for name in fields if name in _SIGNALS)
        except (ValueError, StopIteration, TypeError) as error:
            raise BadRequestError(
                f"line {number} of {str(path)!r} is no OTLP export request in JSON "
                f"({', '.join(_SIGNALS)} are the fields that one has)"
            ) from error
        yield Recorded(signal, _JSON, line, end)


def _messages(path: Path, file: _File, signal: str) -> Iterator[Recorded]:
    end = 0
    while prefix := file.read(4):
        size = int.from_bytes(prefix, "big")
        body = file.read(size) if len(prefix) == 4 and size <= _MAX_REQUEST_BYTES else b""
        if len(prefix) < 4 or len(body) < size:
            raise BadRequestError(
                f"{str(path)!r} has no whole message at byte {end}; it must be JSON lines or "
                "protobuf with a length before each, as the Collector's file exporter writes "
                "(without its own compression)"
            )
        end += 4 + size
        yield Recorded(signal, _PROTOBUF, body, end)


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

    def send(self, request: Recorded) -> tuple[str, int]:
        """Send one request until it is answered for good.

        Returns:
            "" where it was taken, else the server's reason; and how often it was sent again.

        Raises:
            LlmobsError: The server's patience for "later" is over, or `stop` was called.
        """
        deadline = time.monotonic() + self._patience_s
        wait_s, n_retries = _FIRST_WAIT_S, 0
        while True:
            status, reason, retry_after_s = self._try(request)
            if status == 200:
                return "", n_retries
            if status is not None and status not in _TRY_AGAIN:
                return f"{status}: {reason}", n_retries
            pause_s = max(wait_s, retry_after_s)
            if time.monotonic() + pause_s > deadline or self._stop.wait(pause_s):
                raise LlmobsError(
                    f"{self._endpoint} did not take a request within {self._patience_s:g} s "
                    f"({reason}); run the same command again later: what is stored already is "
                    "known by its ids for some minutes"
                )
            wait_s, n_retries = min(wait_s * 2, _LONGEST_WAIT_S), n_retries + 1

    def _try(self, request: Recorded) -> tuple[int | None, str, float]:
        """Return status, reason and seconds to wait; no status where no answer came."""
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
            return None, str(error) or type(error).__name__, 0.0
        return answer.status, _reason(answer, body), _seconds(answer.getheader("Retry-After"))

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


@click.command()
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--endpoint",
    envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
    default="http://127.0.0.1:4318",
    show_default=True,
    help="OTLP/HTTP address of the server.",
)
@click.option("--key", envvar="LLMOBS_INGEST_KEY", help="An ingest key of the server.")
@click.option(
    "--signal",
    type=click.Choice(["traces", "logs", "metrics"]),
    default="traces",
    show_default=True,
    help="What protobuf files hold; JSON says so itself.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Requests in flight.",
)
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Seconds that the server may be full or away.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def replay(
    files: tuple[Path, ...],
    endpoint: str,
    key: str | None,
    signal: str,
    concurrency: int,
    patience_s: float,
    as_json: bool,
) -> None:
    """Send recorded OTLP FILES to a server; exit 1 when it refused a request.

    Files are what the Collector's file exporter writes: JSON lines or protobuf, also packed
    with gzip. A full server is waited for.
    """
    sender = Sender(endpoint, key=key, patience_s=patience_s)
    try:
        sender.check()
        summary = _replay(sender, files, signal, concurrency, quiet=as_json)
    finally:
        sender.close()
    if as_json:
        click.echo(json.dumps(summary))
    else:
        click.echo(
            f"{summary['n_accepted']:,} requests sent ({summary['n_bytes'] / 1e6:,.1f} MB in "
            f"{summary['duration_s']:.1f} s, {summary['n_retries']} sent again)",
            err=True,
        )
        for reason, n in summary["refused"].items():
            click.echo(f"{n:,} refused: {reason}", err=True)
    if summary["n_refused"]:
        raise click.exceptions.Exit(1)


def _replay(
    sender: Sender, files: Sequence[Path], signal: str, concurrency: int, *, quiet: bool
) -> dict[str, Any]:
    started = time.monotonic()
    refused: Counter[str] = Counter()
    n_requests = n_bytes = n_retries = 0
    for request, (reason, again) in _in_flight(
        sender, _shown(files, signal, quiet=quiet), concurrency
    ):
        n_requests, n_bytes = n_requests + 1, n_bytes + len(request.body)
        n_retries += again
        if reason:
            refused[reason] += 1
    return {
        "n_files": len(files),
        "n_requests": n_requests,
        "n_accepted": n_requests - refused.total(),
        "n_refused": refused.total(),
        "n_retries": n_retries,
        "n_bytes": n_bytes,
        "duration_s": round(time.monotonic() - started, 3),
        "refused": dict(refused.most_common(20)),
    }


def _shown(files: Sequence[Path], signal: str, *, quiet: bool) -> Iterator[Recorded]:
    """Read the files one after the other, with a bar on stderr for people."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )
    with progress:
        for path in files:
            packed = path.suffix == ".gz"
            task = progress.add_task(path.name, total=None if packed else path.stat().st_size)
            for request in read_recorded(path, signal):
                yield request
                progress.update(task, completed=request.end)


def _in_flight(
    sender: Sender, requests: Iterable[Recorded], concurrency: int
) -> Iterator[tuple[Recorded, tuple[str, int]]]:
    """Send requests, at most so many at a time, and hand them back in order."""
    with ThreadPoolExecutor(concurrency, thread_name_prefix="llmobs-replay") as pool:
        waiting: deque[tuple[Recorded, Future[tuple[str, int]]]] = deque()
        try:
            for request in requests:
                waiting.append((request, pool.submit(sender.send, request)))
                if len(waiting) > 2 * concurrency:
                    done, answer = waiting.popleft()
                    yield done, answer.result()
            for done, answer in waiting:
                yield done, answer.result()
        except BaseException:
            sender.stop()
            pool.shutdown(cancel_futures=True)
            raise
