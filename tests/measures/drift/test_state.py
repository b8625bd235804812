from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from llmobs.measures.drift import pack, unpack

arrays = hnp.arrays(
    dtype=st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
plain = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text()
values: st.SearchStrategy[Any] = st.recursive(
    plain | arrays,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_a_state_read_back_and_written_again_is_the_same_bytes(tree: dict[str, Any]) -> None:
    assert pack(unpack(pack(tree))) == pack(tree)


@given(arrays)
def test_an_array_keeps_type_shape_and_every_bit(array: np.ndarray[Any, Any]) -> None:
    back = unpack(pack({"x": array}))["x"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_a_restored_array_can_be_written_to() -> None:
    back = unpack(pack({"x": np.zeros(3)}))["x"]
    back[0] = 1.0
    assert back.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("cut", [0, 5, 20, -1])
def test_bytes_that_are_no_whole_state_are_refused(cut: int) -> None:
    whole = pack({"x": np.arange(5.0)})
    with pytest.raises(ValueError):
        unpack(whole[:cut])


@pytest.mark.parametrize("place", [3, 20, 40, -1])
def test_a_state_with_one_wrong_byte_is_refused(place: int) -> None:
    damaged = bytearray(pack({"x": np.arange(5.0)}))
    damaged[place] ^= 1
    with pytest.raises(ValueError, match="state"):
        unpack(bytes(damaged))
