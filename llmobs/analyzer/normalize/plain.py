"""The commonest messages of a call, read by compiled loops: no Python object for a text.

Most calls have one user text, perhaps a system text before it, and one answer of one text, all
as canonical JSON. `read_plain` takes the texts of such messages from the column as it came to
columns; of everything else it says so, and `content` reads that in Python. What is read here,
`messages.input_texts` and `messages.output_text` would say of the same messages.
"""

# A call costs here, so functions are pasted in; sets of numbers don't compile to comparisons.
# ruff: noqa: PLR1714

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from llmobs.measures.compiled import compiler

__all__ = ["Plain", "read_plain"]

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int32]
Rows = npt.NDArray[np.int64]
Int: TypeAlias = Any  # int64 to numba, which infers it

_BAD: Final = -1


class Plain(NamedTuple):
    """What was read of the messages of n spans.

    Attributes:
        texts: User texts, or answers; "" where there is none or it was not read.
        system: System texts.
        left: Spans whose messages are for others to read, ascending.
    """

    texts: pa.StringArray
    system: pa.StringArray
    left: Rows


def read_plain(column: pa.StringArray, rows: Rows, *, is_answer: bool) -> Plain:
    """Read the messages of spans that are plain.

    Args:
        column: Messages as JSON, in any row.
        rows: Which of them each span has, -1 for none; shape (n,).
        is_answer: Whether they are answers; else what a call was given.
    """
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    buf = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    size = int((bounds[1:] - bounds[:-1])[rows[rows >= 0]].sum())
    n = len(rows)
    texts, system = np.empty(size + 1, np.uint8), np.empty(size + 1, np.uint8)
    ends, system_ends = np.zeros(n + 1, np.int32), np.zeros(n + 1, np.int32)
    is_left = np.zeros(n, np.bool_)
    _read(buf, bounds, rows, is_answer, texts, ends, system, system_ends, is_left)
    return Plain(_column(texts, ends), _column(system, system_ends), np.flatnonzero(is_left))


def _column(data: Bytes, ends: Offsets) -> pa.StringArray:
    kept = data[: ends[-1]].copy() if ends[-1] < len(data) // 2 else data
    return pa.StringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(kept))


# ── compiled ─────────────────────────────────────────────────────────────────────────────


_jit: Final = compiler(nogil=True)
_inline: Final = compiler(cache=False, nogil=True, inline="always")


def _pattern(text: str) -> Bytes:
    return np.frombuffer(text.encode(), np.uint8)


# Written by Python with a space behind "," and ":", by JavaScript without: a space here may be
# there or not.
_BEFORE_ROLE: Final = _pattern('{"role": "')
_USER: Final = _pattern("user")
_SYSTEM: Final = _pattern("system")
_ASSISTANT: Final = _pattern("assistant")
_BEFORE_PART: Final = _pattern('", "parts": [{"')
_TYPE_FIRST: Final = _pattern('type": "text", "content": "')
_TEXT_FIRST: Final = _pattern('content": "')
_TYPE_LAST: Final = _pattern(', "type": "text"')
_AFTER_PART: Final = _pattern("}]")
_NO_NAME: Final = _pattern(', "name": null')
_REASON: Final = _pattern(', "finish_reason": "')
_QUOTE: Final = _pattern('"')
_BRACE: Final = _pattern("}")
_BETWEEN: Final = _pattern(", ")


@_inline
def _match(buf: Bytes, p: Int, end: Int, pattern: Bytes) -> Int:
    """Return where a pattern that begins at `p` ends; `_BAD` when it is not there."""
    for want in pattern:
        if 0 <= p < end and buf[p] == want:
            p += 1
        elif want != 32:
            p = _BAD
    return p


@_jit
def _one_text(buf: Bytes, p: Int, end: Int, role: Bytes, out: Bytes, w: Int) -> tuple[Int, Int]:
    """Read a message of one text; return where it ends, and where the text does in `out`."""
    p = _match(buf, p, end, _BEFORE_ROLE)
    p = _match(buf, p, end, role)
    p = _match(buf, p, end, _BEFORE_PART)
    text = _match(buf, p, end, _TYPE_FIRST)
    is_type_first = text != _BAD
    if not is_type_first:
        text = _match(buf, p, end, _TEXT_FIRST)
    if text == _BAD:
        return _BAD, w
    p, w = _string(buf, text, end, out, w)
    if not is_type_first:
        p = _match(buf, p, end, _TYPE_LAST)
    p = _match(buf, p, end, _AFTER_PART)
    for _ in range(2):
        q = _match(buf, p, end, _NO_NAME)
        if q == _BAD:
            q = _match(buf, p, end, _REASON)
            while 0 <= q < end and (97 <= buf[q] < 123 or buf[q] == 95):
                q += 1
            q = _match(buf, q, end, _QUOTE)
        p = p if q == _BAD else q
    return _match(buf, p, end, _BRACE), w


@_jit
def _string(buf: Bytes, p: Int, end: Int, out: Bytes, w: Int) -> tuple[Int, Int]:
    """Write the text of a JSON string; return where it and where the text ends.

    A string is never shorter than its text, so that `out` holds it.
    """
    while p < end:
        run = _plain_run(buf, p, end)
        for k in range(run):
            out[np.uint64(w + k)] = buf[np.uint64(p + k)]
        p += run
        w += run
        if p + 1 >= end or buf[p] < 32:
            break
        if buf[p] == 34:
            return p + 1, w
        escaped = buf[p + 1]
        p += 2
        plain = _escape(escaped)
        if plain:
            out[w] = plain
            w += 1
            continue
        if escaped != 117:
            break
        code = _hex4(buf, p, end)
        p += 4
        if 0xD800 <= code < 0xDC00 and p + 1 < end and buf[p] == 92 and buf[p + 1] == 117:
            low = _hex4(buf, p + 2, end)
            if 0xDC00 <= low < 0xE000:
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                p += 6
        if code < 0 or 0xD800 <= code < 0xE000:  # no digits; half a character
            break
        w = _utf8(code, out, w)
    return _BAD, w


@_inline
def _escape(c: Int) -> Int:
    """Return what a backslash and one more character stand for; 0 for no such thing."""
    if c == 34 or c == 92 or c == 47:
        return np.int64(c)
    if c == 110:
        return np.int64(10)
    if c == 116:
        return np.int64(9)
    if c == 114:
        return np.int64(13)
    if c == 98:
        return np.int64(8)
    return np.int64(12) if c == 102 else np.int64(0)


@_inline
def _plain_run(buf: Bytes, p: Int, end: Int) -> Int:
    """Return how many bytes from `p` on are neither a quote, nor a backslash, nor control."""
    start = p
    while p + 32 <= end:
        special = False
        for k in range(32):  # vectorized
            c = buf[np.uint64(p + k)]
            special |= (c < 32) | (c == 34) | (c == 92)
        if special:
            break
        p += 32
    while p < end and buf[p] >= 32 and buf[p] != 34 and buf[p] != 92:
        p += 1
    return p - start


@_inline
def _hex4(buf: Bytes, p: Int, end: Int) -> Int:
    code: Int = 0
    if p + 4 > end:
        return -1
    for k in range(4):
        c = np.int64(buf[p + k])
        if 48 <= c < 58:
            digit = c - 48
        elif 97 <= (c | 32) < 103:
            digit = (c | 32) - 87
        else:
            return -1
        code = code << 4 | digit
    return code


@_inline
def _utf8(code: Int, out: Bytes, w: Int) -> Int:
    if code < 0x80:
        out[w] = code
        return w + 1
    if code < 0x800:
        out[w] = 0xC0 | code >> 6
        out[w + 1] = 0x80 | code & 63
        return w + 2
    if code < 0x10000:
        out[w] = 0xE0 | code >> 12
        out[w + 1] = 0x80 | (code >> 6) & 63
        out[w + 2] = 0x80 | code & 63
        return w + 3
    out[w] = 0xF0 | code >> 18
    out[w + 1] = 0x80 | (code >> 12) & 63
    out[w + 2] = 0x80 | (code >> 6) & 63
    out[w + 3] = 0x80 | code & 63
    return w + 4


@_jit
def _read(
    buf: Bytes,
    bounds: Offsets,
    rows: Rows,
    is_answer: bool,
    texts: Bytes,
    ends: Offsets,
    system: Bytes,
    system_ends: Offsets,
    is_left: npt.NDArray[np.bool_],
) -> None:
    w: Int = np.int64(0)
    w_system: Int = np.int64(0)
    for i in range(len(rows)):
        row = rows[i]
        if row >= 0:
            p: Int = np.int64(bounds[row])
            end: Int = np.int64(bounds[row + 1])
            w_was, w_system_was = w, w_system
            p = p + 1 if p < end and buf[p] == 91 else _BAD  # "["
            if is_answer:
                p, w = _one_text(buf, p, end, _ASSISTANT, texts, w)
            else:
                first = p
                p, w_system = _one_text(buf, first, end, _SYSTEM, system, w_system)
                p = _match(buf, p, end, _BETWEEN)
                if p == _BAD:
                    p, w_system = first, w_system_was
                p, w = _one_text(buf, p, end, _USER, texts, w)
            if p == _BAD or p + 1 != end or buf[p] != 93:  # "]"
                w, w_system = w_was, w_system_was
                is_left[i] = True
        ends[i + 1] = w
        system_ends[i + 1] = w_system
