"""Programs from outside that some tests run: real ones or none."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def outside(name: str) -> str:
    """Return where a program is; skip the test, or fail it where all parts must be there."""
    beside_python = Path(sys.executable).parent / name
    found = str(beside_python) if beside_python.is_file() else shutil.which(name)
    if found is None and os.environ.get("LLMOBS_REQUIRE_OUTSIDE_PARTS") == "1":
        pytest.fail(f"{name} is not installed, and LLMOBS_REQUIRE_OUTSIDE_PARTS demands it")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
