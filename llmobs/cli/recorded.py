"""Files of telemetry, read one export request at a time."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from llmobs.errors import BadRequestError

if TYPE_CHECKING:  # the command line starts without Arrow
    from llmobs.records import Signal

__all__ = ["JSON", "PROTOBUF", "Recorded", "read_recorded"]

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_PARQUET: Final = b"PAR1"
# The field of an export request in JSON that tells what it holds, and the fields down to its
# items. In protobuf all three signals look alike.
_SIGNALS: Final[dict[str, tuple[Signal, str, str]]] = {
    "resourceSpans": ("traces", "scopeSpans", "spans"),
    "resourceLogs": ("logs", "scopeLogs", "logRecords"),
    "resourceMetrics": ("metrics", "scopeMetrics", "metrics"),
}
# A length above this is no length: the file is something else.
_MAX_REQUEST_BYTES: Final = 128 << 20

_File: TypeAlias = IO[bytes]


class Recorded(NamedTuple):
    """One export request of a file.

    Attributes:
        signal: ``traces``, ``logs`` or ``metrics``.
        content_type: Of `body`.
        body: As it was recorded.
        n_items: Spans, log records or metrics in it; 0 where it can't be read.
        end: Where to go on behind it: bytes of what is unpacked, or rows of a Parquet file.
        n_read: Bytes of the file on disk that were read so far.
    """

    signal: Signal
    content_type: str
    body: bytes
    n_items: int
    end: int
    n_read: int


def read_recorded(path: Path, signal: Signal, start: int = 0) -> Iterator[Recorded]:
    """Read a file one export request at a time.

    Either what the Collector's file exporter writes (one JSON request a line, or protobuf with
    its length in four bytes before each, big-endian, packed with zstd or not), the file as a
    whole packed with gzip or zstd or not; or Parquet as `llmobs export` writes it.

    Args:
        path: The file.
        signal: What a protobuf file holds; the others say so themselves.
        start: Where to begin: `Recorded.end` of the last request that is not wanted.

    Raises:
        BadRequestError: The file holds something else, or ends in the middle of a request.
        OSError: It can't be read.
    """
    with path.open("rb") as disk:
        magic = disk.read(4)
        disk.seek(0)
        if magic == _PARQUET:
            from llmobs.cli.parquet import read_parquet

            yield from read_parquet(path, disk, start)
            return
        is_packed = magic[:2] == _GZIP or magic == _ZSTD
        try:
            for request in _requests(path, _unpacked(disk, magic), signal, start):
                yield request._replace(n_read=disk.tell())
        except (OSError, EOFError, zlib.error) as error:
            if not is_packed:
                raise
            raise BadRequestError(f"{str(path)!r} is broken as a packed file: {error}") from error


def _requests(path: Path, file: Any, signal: Signal, start: int) -> Iterator[Recorded]:
    _skip(file, start)
    if file.peek(1)[:1] in (b"{", b"\n"):
        return _json_lines(path, file, start)
    return _messages(path, file, signal, start)


def _unpacked(disk: _File, magic: bytes) -> Any:
    """Return a buffered reader of what a file holds."""
    if magic[:2] == _GZIP:
        return gzip.GzipFile(fileobj=disk)
    if magic == _ZSTD:
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(disk), "zstd"))
    return disk


def _skip(file: _File, n_bytes: int) -> None:
    """Read over what is done already; a packed file has no shorter way."""
    if n_bytes and file.seekable():
        file.seek(n_bytes)
        return
    while n_bytes and (part := file.read(min(n_bytes, 1 << 20))):
        n_bytes -= len(part)


def _json_lines(path: Path, file: _File, start: int) -> Iterator[Recorded]:
    end = start
    for line in file:
        begin, end = end, end + len(line)
        if not line.strip():
            continue
        request = _json_request(line)
        if request is None:
            raise BadRequestError(
                f"the line at byte {begin} of {str(path)!r} is no OTLP export request in JSON "
                f"({', '.join(_SIGNALS)} are the fields that one has)"
            )
        yield request._replace(end=end)


def _messages(path: Path, file: _File, signal: Signal, start: int) -> Iterator[Recorded]:
    end = start
    while prefix := file.read(4):
        size = int.from_bytes(prefix, "big")
        body = file.read(size) if len(prefix) == 4 and size <= _MAX_REQUEST_BYTES else b""
        if len(prefix) < 4 or len(body) < size:
            raise BadRequestError(
                f"{str(path)!r} has no whole message at byte {end}; it must be JSON lines or "
                "protobuf with a length before each, as the Collector's file exporter writes, "
                "or Parquet that llmobs exported"
            )
        end += 4 + size
        yield _message(path, body, signal)._replace(end=end)


def _message(path: Path, body: bytes, signal: Signal) -> Recorded:
    """Read one message, which the exporter may have packed or written as JSON."""
    if body.startswith(_ZSTD):
        import pyarrow as pa

        try:
            body = pa.CompressedInputStream(pa.BufferReader(body), "zstd").read()
        except OSError as error:
            raise BadRequestError(f"a message of {str(path)!r} is broken: {error}") from error
    if body.startswith(b"{") and (request := _json_request(body)):
        return request
    return Recorded(signal, PROTOBUF, body, _n_items(signal, body), 0, 0)


def _json_request(text: bytes) -> Recorded | None:
    try:
        fields = json.loads(text)
        name = next(name for name in fields if name in _SIGNALS)
    except (ValueError, StopIteration, TypeError):
        return None
    signal, scopes, items = _SIGNALS[name]
    try:
        n = sum(len(s.get(items, ())) for r in fields[name] for s in r.get(scopes, ()))
    except (TypeError, AttributeError):
        n = 0
    return Recorded(signal, JSON, text, n, 0, 0)


def _n_items(signal: Signal, body: bytes) -> int:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
    from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
    from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

    try:
        match signal:
            case "traces":
                traces = TracesData.FromString(body).resource_spans
                return sum(len(s.spans) for r in traces for s in r.scope_spans)
            case "logs":
                logs = LogsData.FromString(body).resource_logs
                return sum(len(s.log_records) for r in logs for s in r.scope_logs)
            case "metrics":
                metrics = MetricsData.FromString(body).resource_metrics
                return sum(len(s.metrics) for r in metrics for s in r.scope_metrics)
    except DecodeError:  # the server says what is wrong with it
        return 0
