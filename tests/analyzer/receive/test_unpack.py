from __future__ import annotations

import contextlib
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmobs.analyzer.receive.unpack import unpack
from llmobs.errors import BadRequestError, TooLargeError

BOMB = gzip.compress(b"\0" * (100 << 20), compresslevel=1)


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_every_encoding_gives_back_what_was_packed(first: bytes, second: bytes) -> None:
    assert unpack(first, "identity", max_bytes=2000) == first
    assert unpack(zlib.compress(first), "deflate", max_bytes=2000) == first
    two_members = gzip.compress(first) + gzip.compress(second)
    assert unpack(two_members, "gzip", max_bytes=4000) == first + second


def test_the_limit_is_exact() -> None:
    packed = gzip.compress(b"x" * 1000)
    assert len(unpack(packed, "gzip", max_bytes=1000)) == 1000
    for body, encoding in ((packed, "gzip"), (b"x" * 1000, ""), (packed * 3, "gzip")):
        with pytest.raises(TooLargeError, match="999 bytes unpacked"):
            unpack(body, encoding, max_bytes=999)


def test_a_bomb_costs_no_more_memory_than_the_limit() -> None:
    tracemalloc.start()
    with pytest.raises(TooLargeError):
        unpack(BOMB, "gzip", max_bytes=4 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 << 20  # the growing buffer is copied once


@given(st.data())
def test_packed_data_cut_anywhere_are_refused(data: st.DataObject) -> None:
    packed = gzip.compress(bytes(range(256)) * 4)
    end = data.draw(st.integers(1, len(packed) - 1))
    with pytest.raises(BadRequestError):
        unpack(packed[:end], "gzip", max_bytes=1 << 20)


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["gzip", "deflate"]))
def test_noise_is_refused_or_unpacked_but_nothing_else(noise: bytes, encoding: str) -> None:
    with contextlib.suppress(BadRequestError, TooLargeError):
        assert len(unpack(noise, encoding, max_bytes=1000)) <= 1000


def test_very_many_gzip_members_are_refused_at_once() -> None:
    with pytest.raises(BadRequestError, match="members"):
        unpack(gzip.compress(b"") * 500_000, "gzip", max_bytes=1 << 20)


def test_something_behind_the_last_member_is_refused() -> None:
    with pytest.raises(BadRequestError):
        unpack(gzip.compress(b"x") + b"garbage", "gzip", max_bytes=1000)
