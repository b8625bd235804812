"""Ways of a test to wait for acknowledgements."""

from __future__ import annotations

import queue
from collections.abc import Iterable

from llmobs.analyzer.log import LogReader, LogWriter
from llmobs.records import Signal

TIMEOUT_S = 20.0


def append_mixed(
    writer: LogWriter, requests: Iterable[tuple[Signal, bytes]]
) -> list[Exception | None]:
    """Append requests at once and return what was said about each, in order."""
    answers: list[queue.SimpleQueue[Exception | None]] = []
    for signal, request in requests:
        answers.append(queue.SimpleQueue())
        writer.append(signal, request, answers[-1].put)
    return [answer.get(timeout=TIMEOUT_S) for answer in answers]


def append_all(
    writer: LogWriter, requests: Iterable[bytes], signal: Signal = "traces"
) -> list[Exception | None]:
    """Append requests of one signal at once; see `append_mixed`."""
    return append_mixed(writer, ((signal, request) for request in requests))


def append(writer: LogWriter, request: bytes, signal: Signal = "traces") -> Exception | None:
    """Append one request and return what was said about it."""
    return append_all(writer, [request], signal)[0]


def stored(reader: LogReader) -> list[tuple[Signal, bytes]]:
    """Return every request of the sealed segments, in order."""
    return [request for number in reader.sealed() for request in reader.read(number).requests]
