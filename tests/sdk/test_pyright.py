"""The same through the other type checker, which editors use."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sdk.test_types import PROGRAM


@pytest.mark.skipif(importlib.util.find_spec("pyright") is None, reason="needs pyright")
def test_types_pass_through_for_pyright_too(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", f"--pythonpath={sys.executable}", file],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    if not done.stdout.startswith("{"):
        pytest.skip("pyright could not be fetched")
    said = json.loads(done.stdout)["generalDiagnostics"]
    revealed = "\n".join(each["message"] for each in said if each["severity"] == "information")
    assert '"(n: int, *, loud: bool = False) -> str"' in revealed
    assert '"(prompt: str) -> CoroutineType[Any, Any, bytes]"' in revealed
    assert "Iterator[str]" in revealed
    assert '"(n: int) -> float"' in revealed
    errors = [each["message"] for each in said if each["severity"] == "error"]
    assert len(errors) == 2, errors
    assert "\"Literal['x']\"" in errors[0]
    assert "capture_content" in errors[1]
