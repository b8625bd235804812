"""State as bytes and back to the bit: trees of arrays and plain values, no pickle."""

from __future__ import annotations

import json
import zlib
from typing import Any, Final, TypeAlias

import numpy as np

__all__ = ["Tree", "pack", "unpack"]

Tree: TypeAlias = dict[str, Any]
"""A dict of arrays, None, bool, int, float, str, and lists and dicts of such."""

_MAGIC: Final = b"llmobs-state\x00"
_ARRAY: Final = "\x00array"  # key of a reference to an array; no field has such a name


def pack(tree: Tree) -> bytes:
    """Write a tree as bytes: a checksum, a JSON head, then the arrays' own bytes, little-endian.

    The same tree always gives the same bytes. Floats keep every bit, NaN and infinities too.

    Args:
        tree: Arrays may be of any shape and of a boolean or numeric type, or of fixed-width
            bytes; keys are strings.
    """
    arrays: list[np.ndarray[Any, Any]] = []

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
            arrays.append(array)
            return {_ARRAY: [len(arrays) - 1, array.dtype.str, list(value.shape)]}
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value.item() if isinstance(value, np.generic) else value

    head = json.dumps(plain(tree), separators=(",", ":")).encode()
    body = b"".join([len(head).to_bytes(8, "little"), head, *(a.tobytes() for a in arrays)])
    return b"".join([_MAGIC, zlib.crc32(body).to_bytes(4, "little"), body])


def unpack(data: bytes) -> Tree:
    """Read back what `pack` wrote; arrays are writable copies.

    Raises:
        ValueError: These bytes are not such a state, or damaged.
    """
    begin = len(_MAGIC) + 4
    start = begin + 8
    if not data.startswith(_MAGIC) or len(data) < start:
        raise ValueError("not a packed state: the bytes begin otherwise")
    # Compiled loops trust the arrays' shapes: what is damaged must not come that far.
    if zlib.crc32(memoryview(data)[begin:]) != int.from_bytes(data[begin - 4 : begin], "little"):
        raise ValueError("a packed state that is damaged: its checksum differs")
    offset = start + int.from_bytes(data[begin:start], "little")

    def alive(value: Any) -> Any:
        nonlocal offset
        if isinstance(value, dict):
            if _ARRAY not in value:
                return {key: alive(item) for key, item in value.items()}
            _, kind, shape = value[_ARRAY]
            dtype = np.dtype(kind)
            n = int(np.prod(shape, dtype=np.int64))
            flat = np.frombuffer(data, dtype, count=n, offset=offset)
            offset += n * dtype.itemsize
            return flat.reshape(shape).copy()
        return [alive(item) for item in value] if isinstance(value, list) else value

    # Arrays were numbered in the order in which they are met here.
    tree: Tree = alive(json.loads(data[start:offset]))
    return tree
