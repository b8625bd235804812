"""Ids and times: what is not as the protocol says is mended, and counted."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["DAY_NS", "Ids", "mend_ids", "times"]

DAY_NS: Final = 86_400 * 10**9
YEAR_2000_NS: Final = 946_684_800 * 10**9
_MAX: Final = np.uint64(2**63 - 1)

Bytes = npt.NDArray[np.uint8]


class Ids(NamedTuple):
    """The ids of the spans of a part as columns of a fixed size."""

    trace: pa.Array
    span: pa.Array
    parent: pa.Array


def mend_ids(spans: pa.RecordBatch, repairs: Counter[str]) -> Ids:
    """Return ids of 16 and 8 bytes.

    An id of another length becomes the hash of what was sent, so that spans which belong
    together still do; one that is missing or zero becomes a hash of the span. Both are the same
    when the span is sent again.
    """
    trace, bad_trace = _fixed(spans.column("trace_id"), 16)
    span, bad_span = _fixed(spans.column("span_id"), 8)
    parent, bad_parent = _fixed(spans.column("parent_id"), 8)
    bad_trace |= ~trace.any(axis=1)
    bad_span |= ~span.any(axis=1)
    for name, sent, out, bad in (
        ("trace_id", spans.column("trace_id"), trace, bad_trace),
        ("span_id", spans.column("span_id"), span, bad_span),
        ("parent_id", spans.column("parent_id"), parent, bad_parent),
    ):
        for i in np.flatnonzero(bad).tolist():
            value = sent[i].as_py()
            if not any(value):
                if name == "parent_id":
                    continue  # a root, oddly said
                value = _whole(spans, i)
            out[i] = np.frombuffer(_digest(value, out.shape[1]), np.uint8)
            repairs[name] += 1
    return Ids(_column(trace), _column(span), _column(parent))


def times(
    spans: pa.RecordBatch, now_ns: int, repairs: Counter[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return start and duration in ns.

    An end before the start makes the duration 0. A start before 2000 or more than a day ahead
    is kept as it is, since nothing better is known, and counted.
    """
    start = np.minimum(spans.column("start_ns").to_numpy(), _MAX).astype(np.int64)
    end = np.minimum(spans.column("end_ns").to_numpy(), _MAX).astype(np.int64)
    for name, wrong in (
        ("end_before_start", end < start),
        ("clock_before_2000", start < YEAR_2000_NS),
        ("clock_in_future", start > now_ns + DAY_NS),
    ):
        if n := int(wrong.sum()):
            repairs[name] += n
    return start, np.maximum(end - start, 0)


def _fixed(sent: pa.BinaryArray, size: int) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """Return ids of the right length, zeros for the others, and which have a wrong length."""
    n = len(sent)
    out = np.zeros((n, size), np.uint8)
    _, offsets, data = sent.buffers()
    if data is None or not n:
        return out, np.zeros(n, np.bool_)
    starts = np.frombuffer(offsets, np.int32)[sent.offset : sent.offset + n + 1].astype(np.int64)
    lengths = np.diff(starts)
    right = np.flatnonzero(lengths == size)
    out[right] = np.frombuffer(data, np.uint8)[starts[right][:, None] + np.arange(size)]
    return out, (lengths != size) & (lengths != 0)


def _column(ids: Bytes) -> pa.Array:
    n, size = ids.shape
    return pa.Array.from_buffers(pa.binary(size), n, [None, pa.py_buffer(ids)])


def _whole(spans: pa.RecordBatch, i: int) -> bytes:
    row = {name: spans.column(name)[i].as_py() for name in _IDENTITY}
    return repr(row).encode(errors="replace")


_IDENTITY: Final = ("trace_id", "span_id", "parent_id", "name", "start_ns", "end_ns", "kind")


def _digest(value: bytes, size: int) -> bytes:
    return hashlib.blake2b(value, digest_size=size).digest()
