"""The compiled scan of OTLP trace requests: wire bytes in, tables of numbers and slices out.

`walk` notes where everything lies, `read_attributes` reads the attributes that it found, and
`gather` copies slices into Arrow buffers.

The bytes are untrusted and compiled code checks no index, so every read goes through the
helpers of the first section, which know where the message ends. They fail *stickily*: an
offset becomes `_BAD`, which lies beyond every end; each loop runs ``while p < end``, and a
message must end exactly at its end. What this scan does not handle (groups, fields that
protobuf would have to merge, keys made to collide) is refused in the same way as what is
malformed: the caller then takes upb, which is slower and has the last word.

Importing this module imports numba; compiling takes seconds. `decode.warm` does both.
"""

# A call costs here, so functions are long; sets of numbers don't compile to comparisons.
# ruff: noqa: PLR0911, PLR0912, PLR0915, PLR1714

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from llmobs.measures.compiled import compiler
from llmobs.records import (
    OWNER_EVENT,
    OWNER_LINK,
    OWNER_RESOURCE,
    OWNER_SCOPE,
    OWNER_SPAN,
    VALUE_BYTES,
    VALUE_LIST,
    VALUE_MAP,
)

__all__ = ["gather", "read_attributes", "walk"]

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Int: TypeAlias = Any  # int64 and uint64 to numba, which infers them

_BAD: Final = 1 << 62
_MAX_TAG_BYTES: Final = 5  # of a tag or a length: upb takes no more, even if all are zeros
_MAX_PROBES: Final = 64  # a fair hash needs 2 or 3; more means keys made to collide
MAX_DEPTH: Final = 32  # of lists and maps written as JSON here; deeper ones are left to upb
JSON_GROWTH: Final = 6  # worst case of bytes written per byte read: "\u0001" for one control byte

# Columns of the table of spans. Slices are an offset and, in the next column, a length.
START, END, KIND, STATUS, FLAGS, DROPPED_A, DROPPED_E, DROPPED_L, RESOURCE, SCOPE = range(10)
TRACE_ID, SPAN_ID, PARENT_ID, NAME, MESSAGE, STATE = range(10, 22, 2)
SPAN_COLUMNS: Final = 22
# Of scopes: a slice each; of events and links: the span, a time, slices.
SCOPE_NAME, SCOPE_VERSION = 0, 2
SCOPE_COLUMNS: Final = 4
EVENT_SPAN, EVENT_TIME, EVENT_NAME = 0, 1, 2
EVENT_COLUMNS: Final = 4
LINK_SPAN, LINK_TRACE_ID, LINK_SPAN_ID, LINK_STATE = 0, 1, 3, 5
LINK_COLUMNS: Final = 7
# Of attributes. An offset at or beyond the length of the wire bytes points into the arena.
OWNER_KIND, OWNER, KEY, VALUE_KIND, NUMBER, TEXT = range(6)
ATTRIBUTE_COLUMNS: Final = 7
# Of keys: a slice, then the key that came after it last.
KEY_AFTER: Final = 2
KEY_COLUMNS: Final = 3
PENDING: Final = 16
"""Added to a kind whose text is still to be made from the AnyValue that the slice points at."""
# What the walk counts.
N_RESOURCES, N_SCOPES, N_SPANS, N_EVENTS, N_LINKS, N_ATTRIBUTES = range(6)
N_COUNTS: Final = 6


_jit: Final = compiler(nogil=True)
# Pasted into every place that calls it: a call counts references to each array it is given.
_inline: Final = compiler(cache=False, nogil=True, inline="always")


# ── bounded reads ────────────────────────────────────────────────────────────────────────


@_inline
def _varint(buf: Bytes, p: Int, end: Int) -> tuple[Int, Int]:
    if p < end and buf[p] < 128:  # nearly all tags and most lengths
        return np.uint64(buf[p]), p + 1
    value = np.uint64(0)
    shift = 0
    while p < end and shift < 70:
        byte = buf[p]
        p += 1
        if shift == 63 and byte > 1:
            break
        value |= np.uint64(byte & 127) << np.uint64(shift)
        if byte < 128:
            return value, p
        shift += 7
    return np.uint64(0), _BAD


@_inline
def _tag(buf: Bytes, p: Int, end: Int) -> tuple[Int, Int]:
    start = p
    value, p = _varint(buf, p, end)
    if value < 8 or value > 0xFFFFFFFF or p - start > _MAX_TAG_BYTES:  # not a number of 29 bits
        return 0, _BAD
    return np.int64(value), p


@_inline
def _length(buf: Bytes, p: Int, end: Int) -> tuple[Int, Int]:
    start = p
    value, p = _varint(buf, p, end)
    if p > end or value > np.uint64(end - p) or p - start > _MAX_TAG_BYTES:
        return 0, _BAD
    return np.int64(value), p


@_inline
def _word(buf: Bytes, p: Int) -> Int:
    """Read 8 bytes that are known to be there."""
    at = np.uint64(p)
    return (
        np.uint64(buf[at])
        | np.uint64(buf[at + np.uint64(1)]) << np.uint64(8)
        | np.uint64(buf[at + np.uint64(2)]) << np.uint64(16)
        | np.uint64(buf[at + np.uint64(3)]) << np.uint64(24)
        | np.uint64(buf[at + np.uint64(4)]) << np.uint64(32)
        | np.uint64(buf[at + np.uint64(5)]) << np.uint64(40)
        | np.uint64(buf[at + np.uint64(6)]) << np.uint64(48)
        | np.uint64(buf[at + np.uint64(7)]) << np.uint64(56)
    )


@_inline
def _fixed64(buf: Bytes, p: Int, end: Int) -> tuple[Int, Int]:
    if p > end or end - p < 8:
        return np.uint64(0), _BAD
    return _word(buf, p), p + 8


@_inline
def _skip(buf: Bytes, p: Int, end: Int, tag: Int) -> Int:
    wire = tag & 7
    if wire == 0:
        _, p = _varint(buf, p, end)
        return p
    if wire == 1:
        _, p = _fixed64(buf, p, end)
        return p
    if wire == 2:
        size, p = _length(buf, p, end)
        return p + size
    if wire == 5 and p <= end and end - p >= 4:
        return p + 4
    return _BAD  # a group, which OTLP does not use, or no such wire type


@_inline
def _fixed32(buf: Bytes, p: Int, end: Int) -> tuple[Int, Int]:
    if p > end or end - p < 4:
        return 0, _BAD
    value: Int = 0
    for i in range(4):
        value |= np.int64(buf[p + i]) << (8 * i)
    return value, p + 4


@_inline
def _slice(buf: Bytes, p: Int, end: Int, table: Ints, i: Int, column: Int) -> Int:
    """Note a length-delimited field as offset and length; return where it ends."""
    n, p = _length(buf, p, end)
    table[i, column] = p
    table[i, column + 1] = n
    return p + n


@_inline
def _small(buf: Bytes, p: Int, end: Int, limit: Int) -> tuple[Int, Int]:
    """Read a number of 32 bits as upb does (the low ones count); 0 beyond `limit`."""
    value, p = _varint(buf, p, end)
    number = np.int64(value & np.uint64(0xFFFFFFFF))
    return (number if number <= limit else 0), p


# ── lists and maps as JSON ───────────────────────────────────────────────────────────────


@_inline
def _write_string(buf: Bytes, p: Int, n: Int, out: Bytes, w: Int) -> Int:
    out[w] = 34
    w += 1
    for i in range(p, p + n):
        c = buf[i]
        if c >= 32 and c != 34 and c != 92:
            out[w] = c
            w += 1
            continue
        out[w] = 92
        short = 0
        if c == 34 or c == 92:
            short = c
        elif c == 8:
            short = 98
        elif c == 9:
            short = 116
        elif c == 10:
            short = 110
        elif c == 12:
            short = 102
        elif c == 13:
            short = 114
        if short:
            out[w + 1] = short
            w += 2
        else:
            out[w + 1] = 117
            out[w + 2] = 48
            out[w + 3] = 48
            out[w + 4] = 48 + (c >> 4)
            low = c & 15
            out[w + 5] = 48 + low if low < 10 else 87 + low
            w += 6
    out[w] = 34
    return w + 1


@_jit
def _write_int(value: Int, out: Bytes, w: Int) -> Int:
    rest = np.uint64(value)
    if value < 0:
        out[w] = 45
        w += 1
        rest = np.uint64(0) - rest
    digits = 1
    power = np.uint64(10)
    while digits < 20 and rest >= power:
        digits += 1
        power *= np.uint64(10)
        if digits == 20:
            break
    for i in range(digits):
        quotient = rest // np.uint64(10)
        out[w + digits - 1 - i] = np.uint8(48) + np.uint8(rest - quotient * np.uint64(10))
        rest = quotient
    return w + digits


@_inline
def _write_word(word: Int, n: Int, out: Bytes, w: Int) -> Int:
    """Write `n` ASCII characters that are packed into an integer, the first one lowest."""
    for i in range(n):
        out[w + i] = (word >> (8 * i)) & 255
    return w + n


_NULL: Final = int.from_bytes(b"null", "little")
_TRUE: Final = int.from_bytes(b"true", "little")
_FALSE: Final = int.from_bytes(b"false", "little")


@_jit
def _write_json(buf: Bytes, p: Int, end: Int, is_map: bool, out: Bytes, w: Int, stack: Ints) -> Int:
    """Write a list or map whose content is at [p, end) as compact JSON from `w` on.

    `stack` has shape (MAX_DEPTH, 3): end, whether it is a map, number of values so far.

    Returns:
        Where the JSON ends; -1 for what this writer leaves to upb: doubles, bytes, deep
        nesting, fields in an unusual order, malformed bytes.
    """
    if w + JSON_GROWTH * (end - p) + 8 > len(out):
        return -1
    depth = 0
    stack[0, 0], stack[0, 1], stack[0, 2] = end, is_map, 0
    out[w] = 123 if is_map else 91
    w += 1
    while depth >= 0:
        end = stack[depth, 0]
        if p == end:
            out[w] = 125 if stack[depth, 1] else 93
            w += 1
            depth -= 1
            continue
        tag, p = _tag(buf, p, end)
        if tag != 10:
            return -1
        n, p = _length(buf, p, end)
        if p > end:
            return -1
        stop = p + n
        if stack[depth, 2]:
            out[w] = 44
            w += 1
        stack[depth, 2] += 1
        if stack[depth, 1]:  # a KeyValue: its key, then its value, nothing else
            n = 0
            at = p
            if p < stop and buf[p] == 10:
                n, at = _length(buf, p + 1, stop)
                p = at + n
            if p > stop:
                return -1
            w = _write_string(buf, at, n, out, w)
            out[w] = 58
            w += 1
            if p < stop:
                if buf[p] != 18:
                    return -1
                n, p = _length(buf, p + 1, stop)
                if p + n != stop:
                    return -1
        if p == stop:
            w = _write_word(_NULL, 4, out, w)
            continue
        tag, p = _tag(buf, p, stop)
        if tag == 10:
            n, p = _length(buf, p, stop)
            if p + n != stop:
                return -1
            w = _write_string(buf, p, n, out, w)
            p = stop
        elif tag == 16 or tag == 24:
            number, p = _varint(buf, p, stop)
            if p != stop:
                return -1
            if tag == 24:
                w = _write_int(np.int64(number), out, w)
            elif number:
                w = _write_word(_TRUE, 4, out, w)
            else:
                w = _write_word(_FALSE, 5, out, w)
        elif tag == 42 or tag == 50:
            n, p = _length(buf, p, stop)
            depth += 1
            if p + n != stop or depth == MAX_DEPTH:
                return -1
            stack[depth, 0], stack[depth, 1], stack[depth, 2] = stop, tag == 50, 0
            out[w] = 123 if tag == 50 else 91
            w += 1
        else:
            return -1
    return w


# ── the walk ─────────────────────────────────────────────────────────────────────────────


@_jit
def walk(
    buf: Bytes,
    offsets: Ints,
    scopes: Ints,
    spans: Ints,
    events: Ints,
    links: Ints,
    attributes: Ints,
    counts: Ints,
) -> bool:
    """Note in tables where spans, scopes, events, links and attributes lie.

    A row that a table has no room for overwrites its last one; the counts are right all the
    same, so that a second walk over tables of the right size can follow.

    Args:
        buf: All requests, one after the other.
        offsets: Where each begins, and the end of the last; shape (n_requests + 1,).
        scopes: Zeros of shape (n > 0, SCOPE_COLUMNS).
        spans: Zeros of shape (n > 0, SPAN_COLUMNS).
        events: Zeros of shape (n > 0, EVENT_COLUMNS).
        links: Zeros of shape (n > 0, LINK_COLUMNS).
        attributes: Zeros of shape (n > 0, ATTRIBUTE_COLUMNS); gets owners, and in `TEXT`
            the slice of the whole KeyValue.
        counts: Zeros of shape (N_COUNTS,); gets how many there are of each.

    Returns:
        False when one of the requests is not for this scanner.
    """
    for r in range(len(offsets) - 1):
        p, end = offsets[r], offsets[r + 1]
        while p < end:
            tag, p = _tag(buf, p, end)
            if tag != 10:
                p = _skip(buf, p, end, tag)
                continue
            n, p = _length(buf, p, end)
            p = _walk_resource(buf, p, p + n, scopes, spans, events, links, attributes, counts)
            counts[N_RESOURCES] += 1
        if p != end:
            return False
    return True


@_jit
def _walk_resource(
    buf: Bytes,
    p: Int,
    end: Int,
    scopes: Ints,
    spans: Ints,
    events: Ints,
    links: Ints,
    attributes: Ints,
    counts: Ints,
) -> Int:
    has_resource = False
    while p < end:
        tag, p = _tag(buf, p, end)
        if tag == 18:
            n, p = _length(buf, p, end)
            p = _walk_scope(buf, p, p + n, scopes, spans, events, links, attributes, counts)
            counts[N_SCOPES] += 1
        elif tag == 10:
            if has_resource:
                return _BAD
            has_resource = True
            n, p = _length(buf, p, end)
            stop = p + n
            while p < stop:
                tag, p = _tag(buf, p, stop)
                if tag == 10:
                    p = _note(buf, p, stop, attributes, counts, OWNER_RESOURCE, counts[N_RESOURCES])
                elif tag == 26:
                    p = _walk_entity(buf, p, stop)
                else:
                    p = _skip(buf, p, stop, tag)
            if p != stop:
                return _BAD
        else:
            p = _skip(buf, p, end, tag)
    return p if p == end else _BAD


@_jit
def _walk_entity(buf: Bytes, p: Int, end: Int) -> Int:
    """Pass an EntityRef: not kept, but it has to be well formed."""
    n, p = _length(buf, p, end)
    end = p + n
    while p < end:
        tag, p = _tag(buf, p, end)
        p = _skip(buf, p, end, tag)
    return p if p == end else _BAD


@_inline
def _note(
    buf: Bytes, p: Int, end: Int, attributes: Ints, counts: Ints, owner_kind: Int, owner: Int
) -> Int:
    """Note where a KeyValue lies and whose it is; return where it ends."""
    i = min(counts[N_ATTRIBUTES], len(attributes) - 1)
    counts[N_ATTRIBUTES] += 1
    attributes[i, OWNER_KIND] = owner_kind
    attributes[i, OWNER] = owner
    return _slice(buf, p, end, attributes, i, TEXT)


@_jit
def _walk_scope(
    buf: Bytes,
    p: Int,
    end: Int,
    scopes: Ints,
    spans: Ints,
    events: Ints,
    links: Ints,
    attributes: Ints,
    counts: Ints,
) -> Int:
    has_scope = False
    owner = counts[N_SCOPES]
    i = min(owner, len(scopes) - 1)
    while p < end:
        tag, p = _tag(buf, p, end)
        if tag == 18:
            n, p = _length(buf, p, end)
            p = _walk_span(buf, p, p + n, spans, events, links, attributes, counts)
            counts[N_SPANS] += 1
        elif tag == 10:
            if has_scope:
                return _BAD
            has_scope = True
            n, p = _length(buf, p, end)
            stop = p + n
            while p < stop:
                tag, p = _tag(buf, p, stop)
                if tag == 10 or tag == 18:
                    column = SCOPE_NAME if tag == 10 else SCOPE_VERSION
                    p = _slice(buf, p, stop, scopes, i, column)
                elif tag == 26:
                    p = _note(buf, p, stop, attributes, counts, OWNER_SCOPE, owner)
                else:
                    p = _skip(buf, p, stop, tag)
            if p != stop:
                return _BAD
        else:
            p = _skip(buf, p, end, tag)
    return p if p == end else _BAD


@_jit
def _walk_span(
    buf: Bytes,
    p: Int,
    end: Int,
    spans: Ints,
    events: Ints,
    links: Ints,
    attributes: Ints,
    counts: Ints,
) -> Int:
    owner = counts[N_SPANS]
    i = min(owner, len(spans) - 1)
    spans[i, RESOURCE] = counts[N_RESOURCES]
    spans[i, SCOPE] = counts[N_SCOPES]
    n_below = counts[N_EVENTS] + counts[N_LINKS]
    has_status = False
    while p < end:
        tag, p = _tag(buf, p, end)
        if tag == 74:
            if counts[N_EVENTS] + counts[N_LINKS] != n_below:
                return _BAD  # `read_attributes` needs those of one owner side by side
            p = _note(buf, p, end, attributes, counts, OWNER_SPAN, owner)
        elif tag == 10 or tag == 18 or tag == 34 or tag == 42 or tag == 26:
            if tag == 10:
                column = TRACE_ID
            elif tag == 18:
                column = SPAN_ID
            elif tag == 34:
                column = PARENT_ID
            else:
                column = NAME if tag == 42 else STATE
            p = _slice(buf, p, end, spans, i, column)
        elif tag == 57 or tag == 65:
            time, p = _fixed64(buf, p, end)
            spans[i, START if tag == 57 else END] = np.int64(time)
        elif tag == 48:
            spans[i, KIND], p = _small(buf, p, end, 255)
        elif tag == 80 or tag == 96 or tag == 112:
            number, p = _small(buf, p, end, 0xFFFFFFFF)
            spans[i, DROPPED_A if tag == 80 else DROPPED_E if tag == 96 else DROPPED_L] = number
        elif tag == 133:
            spans[i, FLAGS], p = _fixed32(buf, p, end)
        elif tag == 122:
            if has_status:
                return _BAD
            has_status = True
            n, p = _length(buf, p, end)
            stop = p + n
            while p < stop:
                tag, p = _tag(buf, p, stop)
                if tag == 18:
                    p = _slice(buf, p, stop, spans, i, MESSAGE)
                elif tag == 24:
                    spans[i, STATUS], p = _small(buf, p, stop, 255)
                else:
                    p = _skip(buf, p, stop, tag)
            if p != stop:
                return _BAD
        elif tag == 90:
            p = _walk_event(buf, p, end, owner, events, attributes, counts)
        elif tag == 106:
            p = _walk_link(buf, p, end, owner, links, attributes, counts)
        else:
            p = _skip(buf, p, end, tag)
    return p if p == end else _BAD


@_jit
def _walk_event(
    buf: Bytes, p: Int, end: Int, span: Int, events: Ints, attributes: Ints, counts: Ints
) -> Int:
    owner = counts[N_EVENTS]
    counts[N_EVENTS] += 1
    i = min(owner, len(events) - 1)
    events[i, EVENT_SPAN] = span
    n, p = _length(buf, p, end)
    end = p + n
    while p < end:
        tag, p = _tag(buf, p, end)
        if tag == 9:
            time, p = _fixed64(buf, p, end)
            events[i, EVENT_TIME] = np.int64(time)
        elif tag == 18:
            p = _slice(buf, p, end, events, i, EVENT_NAME)
        elif tag == 26:
            p = _note(buf, p, end, attributes, counts, OWNER_EVENT, owner)
        else:
            p = _skip(buf, p, end, tag)
    return p if p == end else _BAD


@_jit
def _walk_link(
    buf: Bytes, p: Int, end: Int, span: Int, links: Ints, attributes: Ints, counts: Ints
) -> Int:
    owner = counts[N_LINKS]
    counts[N_LINKS] += 1
    i = min(owner, len(links) - 1)
    links[i, LINK_SPAN] = span
    n, p = _length(buf, p, end)
    end = p + n
    while p < end:
        tag, p = _tag(buf, p, end)
        if tag == 10:
            p = _slice(buf, p, end, links, i, LINK_TRACE_ID)
        elif tag == 18:
            p = _slice(buf, p, end, links, i, LINK_SPAN_ID)
        elif tag == 26:
            p = _slice(buf, p, end, links, i, LINK_STATE)
        elif tag == 34:
            p = _note(buf, p, end, attributes, counts, OWNER_LINK, owner)
        else:
            p = _skip(buf, p, end, tag)
    return p if p == end else _BAD


# ── attributes ───────────────────────────────────────────────────────────────────────────


@_jit
def read_attributes(
    buf: Bytes,
    attributes: Ints,
    keys: Ints,
    slots: Ints,
    seen: Ints,
    arena: Bytes,
    stack: Ints,
) -> tuple[Int, Int, Int]:
    """Read each KeyValue that `walk` has noted, in place.

    A key that an owner has twice keeps its first place and takes its last value, so fewer
    rows may be left than there were.

    Args:
        buf: All requests, one after the other.
        attributes: As `walk` has left it, shape (n, ATTRIBUTE_COLUMNS).
        keys: Of shape (n, KEY_COLUMNS), zeros; gets the slice of each distinct key.
        slots: Zeros of shape (a power of 2 above n,): a hash table of keys.
        seen: Zeros of shape (n, 2): the owner who had a key last, and in which row.
        arena: Gets the JSON of lists and maps; `JSON_GROWTH` times as long as `buf`.
        stack: Of shape (MAX_DEPTH, 3), scratch.

    Returns:
        How many rows are left, how many keys there are, and how much of the arena is used;
        -1 for each when an attribute is not for this scanner.
    """
    refused = -1, -1, -1
    n_rows, n_keys, used = 0, 0, 0
    serial, owner_kind, owner = 0, -1, -1
    before = 0
    for source in range(len(attributes)):
        if attributes[source, OWNER_KIND] != owner_kind or attributes[source, OWNER] != owner:
            owner_kind, owner = attributes[source, OWNER_KIND], attributes[source, OWNER]
            serial += 1
        p = attributes[source, TEXT]
        end = p + attributes[source, TEXT + 1]
        key_at, key_n, value_at, value_n = p, 0, -1, 0
        while p < end:
            tag, p = _tag(buf, p, end)
            if tag == 10:
                key_n, p = _length(buf, p, end)
                key_at = p
                p += key_n
            elif tag == 18 and value_at < 0:
                value_n, p = _length(buf, p, end)
                value_at = p
                p += value_n
            elif tag == 18 or tag == 24:  # a second value to merge; a key of a profile
                return refused
            else:
                p = _skip(buf, p, end, tag)
        if p != end:
            return refused

        key = keys[before, KEY_AFTER]  # spans of one producer have the same keys in the same order
        if key >= n_keys or keys[key, 1] != key_n or not _same(buf, key_at, keys[key, 0], key_n):
            key = _find(buf, key_at, key_n, keys, slots)
        if key < 0:
            slot = -1 - key
            if slot > len(slots):
                return refused
            key = n_keys
            n_keys += 1
            keys[key, 0], keys[key, 1] = key_at, key_n
            slots[slot] = key + 1
        keys[before, KEY_AFTER] = key
        before = key
        i = n_rows
        if seen[key, 0] == serial:
            i = seen[key, 1]
            if attributes[i, VALUE_KIND] >= PENDING:  # its bytes would never be looked at
                return refused
        else:
            n_rows += 1
            seen[key, 0], seen[key, 1] = serial, i

        kind = 0
        number: Int = np.int64(0)
        text_at: Int = np.int64(0)
        text_n: Int = np.int64(0)
        p = max(value_at, 0)
        end = p + value_n
        while p < end:
            tag, p = _tag(buf, p, end)
            if tag == 10 or tag == 42 or tag == 50 or tag == 58:
                text_n, p = _length(buf, p, end)
                text_at = p
                p += text_n
            elif tag == 16 or tag == 24:
                bits, p = _varint(buf, p, end)
                number = np.int64(bits) if tag == 24 else np.int64(bits != 0)
            elif tag == 33:
                bits, p = _fixed64(buf, p, end)
                number = np.int64(bits)
            elif tag == 64:  # an index into the strings of a profile
                return refused
            else:
                p = _skip(buf, p, end, tag)
                continue
            if kind:  # a oneof set twice
                return refused
            kind = tag >> 3
        if p != end:
            return refused
        if kind >= VALUE_LIST:
            w = -1
            if kind != VALUE_BYTES:
                w = _write_json(
                    buf, text_at, text_at + text_n, kind == VALUE_MAP, arena, used, stack
                )
            if w < 0:
                kind += PENDING
                text_at, text_n = value_at, value_n
            else:
                text_at, text_n = len(buf) + used, w - used
                used = w
        attributes[i, OWNER_KIND], attributes[i, OWNER] = owner_kind, owner
        attributes[i, KEY], attributes[i, VALUE_KIND] = key, kind
        attributes[i, NUMBER] = number
        attributes[i, TEXT], attributes[i, TEXT + 1] = text_at, text_n
    return n_rows, n_keys, used


@_inline
def _same(buf: Bytes, at: Int, other: Int, n: Int) -> bool:
    """Tell whether two slices of `n` bytes hold the same."""
    i = 0
    while i + 8 < n and _word(buf, other + i) == _word(buf, at + i):
        i += 8
    if i + 8 >= n >= 8 and _word(buf, other + n - 8) == _word(buf, at + n - 8):
        i = n
    while i < n and buf[other + i] == buf[at + i]:
        i += 1
    return bool(i == n)


@_inline
def _find(buf: Bytes, at: Int, n: Int, keys: Ints, slots: Ints) -> Int:
    """Return the number of a key; for a new one -1 less the free slot, far below for none."""
    h = np.uint64(n)
    stop = at + n
    p = at
    while p + 8 < stop:
        h = (h ^ _word(buf, p)) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
        p += 8
    if n >= 8:  # the last 8 bytes, some of them a second time
        h = (h ^ _word(buf, stop - 8)) * np.uint64(0x9E3779B97F4A7C15)
        p = stop
    while p < stop:
        h = (h ^ np.uint64(buf[p])) * np.uint64(0x9E3779B97F4A7C15)
        p += 1
    mask = len(slots) - 1
    slot = np.int64((h ^ (h >> np.uint64(32))) & np.uint64(mask))
    found: Int = -(1 << 62)
    for _ in range(_MAX_PROBES):
        k = slots[slot] - 1
        if k < 0:
            found = -1 - slot
            break
        if keys[k, 1] == n and _same(buf, at, keys[k, 0], n):
            found = k
            break
        slot = (slot + 1) & mask
    return found


@_jit
def gather(
    buf: Bytes, arena: Bytes, at: Ints, lengths: Ints
) -> tuple[npt.NDArray[np.int32], Bytes]:
    """Copy slices into one buffer, as Arrow keeps strings.

    Args:
        buf: What offsets below ``len(buf)`` point into.
        arena: What the others point into, less ``len(buf)``.
        at: Offsets of the slices, shape (n,).
        lengths: Their lengths, shape (n,).

    Returns:
        Offsets of shape (n + 1,) and the bytes.
    """
    n = len(at)
    offsets = np.empty(n + 1, np.int32)
    total = 0
    for i in range(n):
        offsets[i] = total
        total += lengths[i]
    offsets[n] = total
    out = np.empty(total, np.uint8)
    w: Int = np.int64(0)
    for i in range(n):
        source, start = buf, at[i]
        if start >= len(buf):
            source, start = arena, start - len(buf)
        for k in range(lengths[i]):  # an unsigned index is never checked for being negative
            out[np.uint64(w + k)] = source[np.uint64(start + k)]
        w += lengths[i]
    return offsets, out
