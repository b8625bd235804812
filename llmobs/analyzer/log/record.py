"""One request as bytes in a segment, and how to find it again among damaged bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import xxhash
from isal import isal_zlib

from llmobs.records import Signal

__all__ = ["HEADER_BYTES", "Damage", "Record", "digest_of", "pack", "scan"]

_MAGIC: Final = b"\xf1LM1"
# magic, crc32 of all that follows it (payload included), payload length, signal, flags (none
# defined: 0), two bytes of padding, request hash. Little-endian.
_HEADER: Final = struct.Struct("<4sIIBBxx16s")
_CRC_END: Final = 8
HEADER_BYTES: Final = _HEADER.size
_SIGNALS: Final[tuple[Signal, ...]] = ("traces", "logs", "metrics")


@dataclass(frozen=True, slots=True)
class Record:
    """One request with its header.

    Attributes:
        digest: As `digest_of` makes it.
    """

    signal: Signal
    digest: bytes
    header: bytes
    request: bytes

    def __len__(self) -> int:
        return HEADER_BYTES + len(self.request)


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes [start, end) of a segment that hold no record that checks."""

    start: int
    end: int


def digest_of(signal: Signal, request: bytes) -> bytes:
    """Return 16 bytes that are the same for byte-identical requests of one signal only.

    Of a request nobody else knows the bytes before it comes, its random ids among them, so
    none can be made that is taken for it: what tells accidents apart is enough, and costs a
    fiftieth of what a cryptographic hash does.
    """
    return xxhash.xxh3_128_digest(request, seed=_SIGNALS.index(signal))


def pack(signal: Signal, request: bytes) -> Record:
    """Make the record of one request."""
    digest = digest_of(signal, request)
    header = _HEADER.pack(_MAGIC, 0, len(request), _SIGNALS.index(signal), 0, digest)
    crc = isal_zlib.crc32(request, isal_zlib.crc32(header[_CRC_END:]))
    return Record(signal, digest, _MAGIC + struct.pack("<I", crc) + header[_CRC_END:], request)


def scan(data: bytes) -> Iterator[tuple[int, Record | Damage]]:
    """Walk through the bytes of a segment.

    Yields:
        The offset behind each record, and the record; a damaged stretch comes as one `Damage`
        that ends where the next record checks, or at the end of the data.
    """
    at = damaged_from = 0
    while at < len(data):
        record = _record_at(data, at)
        if record is None:
            found = data.find(_MAGIC, at + 1)
            at = len(data) if found < 0 else found
            continue
        if damaged_from < at:
            yield at, Damage(damaged_from, at)
        at = damaged_from = at + len(record)
        yield at, record
    if damaged_from < at:
        yield at, Damage(damaged_from, at)


def _record_at(data: bytes, start: int) -> Record | None:
    body = start + HEADER_BYTES
    if body > len(data):
        return None
    magic, crc, length, signal, flags, digest = _HEADER.unpack_from(data, start)
    if magic != _MAGIC or flags or signal >= len(_SIGNALS) or body + length > len(data):
        return None
    if isal_zlib.crc32(memoryview(data)[start + _CRC_END : body + length]) != crc:
        return None
    return Record(_SIGNALS[signal], digest, data[start:body], data[body : body + length])
