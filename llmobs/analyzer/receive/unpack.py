"""Unpacking of request bodies that strangers send: never more memory than allowed."""

from __future__ import annotations

from typing import Final

from isal import isal_zlib

from llmobs.errors import BadRequestError, TooLargeError

__all__ = ["GZIP_MAGIC", "is_known_encoding", "unpack"]

# First bytes of a gzip member. No protobuf begins so: 0x1f would be wire type 7.
GZIP_MAGIC: Final = b"\x1f\x8b"

# Window bits that select the format: 16 + 15 gzip, 15 zlib (what HTTP calls deflate).
_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}
# Every member is followed by a copy of what is left, so very many small ones would take minutes.
_MAX_MEMBERS: Final = 64
_PLAIN: Final = ("", "identity")


def is_known_encoding(encoding: str) -> bool:
    """Return whether `unpack` takes this Content-Encoding."""
    return encoding in _PLAIN or encoding in _WINDOW_BITS


def unpack(packed: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """Undo a Content-Encoding.

    Args:
        packed: The body as it came.
        encoding: ``gzip``, ``deflate``, ``identity`` or "".
        max_bytes: Unpacking stops here, so a bomb costs no more memory than this.

    Raises:
        TooLargeError: There would be more than `max_bytes`.
        BadRequestError: The data are not of that encoding, or cut short.
    """
    if encoding in _PLAIN:
        if len(packed) > max_bytes:
            raise TooLargeError(_too_large(max_bytes))
        return packed
    parts: list[bytes] = []
    left = max_bytes
    while packed:  # gzip allows several members one behind the other
        if len(parts) == _MAX_MEMBERS:
            raise BadRequestError(f"the body has more than {_MAX_MEMBERS} gzip members; send one")
        stream = isal_zlib.decompressobj(_WINDOW_BITS[encoding])
        try:
            part = stream.decompress(packed, left + 1)
        except isal_zlib.error as error:  # type: ignore[misc] # the stub says instance
            raise BadRequestError(
                f"the body is not valid {encoding} ({error}); check what packs it"
            ) from error
        left -= len(part)
        if left < 0:
            raise TooLargeError(_too_large(max_bytes))
        if not stream.eof:
            raise BadRequestError(f"the {encoding} body is cut short; send all of it")
        parts.append(part)
        packed = stream.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(max_bytes: int) -> str:
    return (
        f"the request is larger than {max_bytes} bytes unpacked; "
        "send fewer spans at once (OTEL_BSP_MAX_EXPORT_BATCH_SIZE)"
    )
