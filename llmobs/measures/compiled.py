"""How loops are compiled, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiler"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiler(*, cache: bool = True, **flags: Any) -> Callable[[_Function], _Function]:
    """Return a decorator that compiles with numba.

    Args:
        cache: Keep the machine code where numba finds a place that can be written to:
            ``NUMBA_CACHE_DIR``, the ``__pycache__`` beside the function's file or the user's
            cache folder, in this order. With none of them, each process compiles anew. What is
            kept is renewed when the function's file changes, not when the flags do.
        flags: Of `numba.njit`.
    """

    def compiled(function: _Function) -> _Function:
        loop: Any
        try:
            loop = numba.njit(cache=cache, **flags)(function)
        except RuntimeError:  # "cannot cache function: no locator available"
            loop = numba.njit(**flags)(function)
        return cast(_Function, loop)

    return compiled
