"""Requests whose texts are not UTF-8: read all the same, with the bad bytes replaced.

Protobuf refuses a whole request for one bad byte in one string, and a prompt cut in the middle
of a character is a common fault of producers. So the same messages are declared a second time
with `bytes` where they have `string`, parsed as that, and given back with U+FFFD in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import DecodeError, Message

__all__ = ["parse", "parse_loose", "parse_mended"]

M = TypeVar("M", bound=Message)


def parse(kind: type[M], body: bytes) -> tuple[M, int]:
    """Parse a request; mend its texts if that is all that is wrong with it.

    Returns:
        The message, and how many texts had to be mended.

    Raises:
        google.protobuf.message.DecodeError: The bytes are no such message.
    """
    message = parse_loose(kind, body)
    return (message, 0) if isinstance(message, kind) else parse_mended(kind, body)


def parse_loose(kind: type[Message], body: bytes) -> Any:
    """Parse a request; one whose texts are not UTF-8 comes with bytes in their place.

    Raises:
        google.protobuf.message.DecodeError: The bytes are no such message.
    """
    try:
        return kind.FromString(body)
    except DecodeError as error:
        if "UTF-8" not in str(error):
            raise
    return _with_bytes(kind.DESCRIPTOR).FromString(body)


def parse_mended(kind: type[M], body: bytes) -> tuple[M, int]:
    """Parse with texts as bytes, replace what is not UTF-8, and return message and count."""
    loose = _with_bytes(kind.DESCRIPTOR).FromString(body)
    n_mended = _mend(loose)
    return kind.FromString(loose.SerializeToString()), n_mended


def _mend(message: Message) -> int:
    n_mended = 0
    for field, value in message.ListFields():
        repeated = field.is_repeated
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            n_mended += sum(map(_mend, value)) if repeated else _mend(value)
        elif field.type == FieldDescriptor.TYPE_BYTES and field.name in _texts(message.DESCRIPTOR):
            old = list(value) if repeated else [value]
            new = [text.decode(errors="replace").encode() for text in old]
            n_mended += sum(a != b for a, b in zip(old, new, strict=True))
            if repeated:
                value[:] = new
            else:
                setattr(message, field.name, new[0])
    return n_mended


@cache
def _texts(loose: Descriptor) -> frozenset[str]:
    """Return which fields of a message are texts in its original."""
    original = descriptor_pool.Default().FindMessageTypeByName(loose.full_name)
    return frozenset(f.name for f in original.fields if f.type == FieldDescriptor.TYPE_STRING)


@cache
def _with_bytes(original: Descriptor) -> Any:
    pool = descriptor_pool.DescriptorPool()
    for file in _files(original.file):
        declared = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(declared)
        for message in declared.message_type:
            _declare_bytes(message)
        pool.Add(declared)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(original.full_name))


def _files(file: FileDescriptor, seen: set[str] | None = None) -> Iterator[FileDescriptor]:
    """Yield a file after all that it imports, each once."""
    seen = set() if seen is None else seen
    if file.name in seen:
        return
    seen.add(file.name)
    for needed in file.dependencies:
        yield from _files(needed, seen)
    yield file


def _declare_bytes(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        if field.type == FieldDescriptor.TYPE_STRING:
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
    for nested in message.nested_type:
        _declare_bytes(nested)
