"""Programs from outside that some tests run: real ones or none."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["missing", "outside", "parts"]


def outside(name: str) -> str:
    """Return where a program is; skip the test, or fail it where all parts must be there."""
    beside_python = Path(sys.executable).parent / name
    found = str(beside_python) if beside_python.is_file() else shutil.which(name)
    return found or missing(f"{name} is not installed")


def parts() -> Path:
    """Return the folder where `.ci` puts what it builds or fetches."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "llmobs-parts"


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it where all parts must be there."""
    if os.environ.get("LLMOBS_REQUIRE_OUTSIDE_PARTS") == "1":
        pytest.fail(f"{what}, and LLMOBS_REQUIRE_OUTSIDE_PARTS demands it")
    pytest.skip(what)
