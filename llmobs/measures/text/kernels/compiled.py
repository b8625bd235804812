"""How this room compiles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile; the machine code is kept where numba finds a place that can be written to.

    Sums may be taken in another order than written, which is what lets them be vectorized.
    """
    compiler: Any = functools.partial(
        numba.njit, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"}
    )
    loop: Any
    try:
        loop = compiler(cache=True)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        loop = compiler()(function)
    return cast(_Function, loop)
