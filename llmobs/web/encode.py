"""Answers as JSON that every client can read: no NaN, no bytes, no NumPy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import numpy as np
from starlette.responses import Response

__all__ = ["JsonResponse", "plain"]


def plain(value: Any) -> Any:
    """Return `value` made of JSON types alone.

    NaN and the infinities become None (JSON has no word for them), bytes become hex, dates
    become ISO 8601, NumPy numbers and arrays become numbers and lists.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


class JsonResponse(Response):
    """JSON that no cache keeps: every answer is about now, and may hold prompts."""

    media_type = "application/json"

    def __init__(self, content: Any, status_code: int = 200) -> None:
        super().__init__(content, status_code, headers={"Cache-Control": "no-store"})

    def render(self, content: Any) -> bytes:
        """Encode `content`."""
        return json.dumps(
            plain(content), ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
