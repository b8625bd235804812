"""How this room compiles."""

from __future__ import annotations

from typing import Final

from llmobs.measures.compiled import compiler

__all__ = ["compiled"]

# Sums may be taken in another order than written, which is what lets them be vectorized.
compiled: Final = compiler(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
