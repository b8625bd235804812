"""Files that ship with this room."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

__all__ = ["packaged", "weights"]


def packaged(name: str) -> bytes:
    """Read a file that ships with this room."""
    return files("llmobs.measures.text").joinpath("weights", name).read_bytes()


def weights(name: str) -> dict[str, npt.NDArray[Any]]:
    """Read packaged arrays; what is stored in half precision is computed with in single."""
    arrays = safetensors.numpy.load(packaged(name))
    half = np.dtype(np.float16)
    return {key: a.astype(np.float32) if a.dtype == half else a for key, a in arrays.items()}
