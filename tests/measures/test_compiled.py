from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from llmobs.measures.compiled import compiler


def from_nowhere(source: str) -> Callable[..., Any]:
    """Make a function that was not read from a file: it has no folder, as on a read-only disk."""
    names: dict[str, Any] = {}
    exec(source, names)
    function: Callable[..., Any] = names["function"]
    return function


def test_a_loop_is_compiled_also_where_nothing_can_be_written() -> None:
    assert compiler()(from_nowhere("def function(x):\n    return 2 * x"))(3) == 6


def test_the_flags_hold_also_where_nothing_can_be_written() -> None:
    inverse = from_nowhere("def function(x):\n    return 1 / x")
    assert compiler(error_model="numpy")(inverse)(0.0) == math.inf
    with pytest.raises(ZeroDivisionError):
        compiler()(inverse)(0.0)
