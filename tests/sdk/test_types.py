"""What a type checker sees through the decorator and the lazy package."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

import llmobs

PROGRAM = """
from collections.abc import Iterator
import llmobs

@llmobs.observe
def bare(n: int, *, loud: bool = False) -> str: return str(n)

@llmobs.observe(kind="chat", model="m")
async def later(prompt: str) -> bytes: return b""

@llmobs.observe(kind="chat")
def stream(prompt: str) -> Iterator[str]: yield prompt

class Client:
    @llmobs.observe(kind="tool")
    def method(self, n: int) -> float: return 0.5

reveal_type(bare)
reveal_type(later)
reveal_type(stream("x"))
reveal_type(Client().method)
reveal_type(llmobs.current_ids())
reveal_type(llmobs.status().dropped)
with llmobs.session("s"), llmobs.span("tool") as span:
    span.set(output=1)
    llmobs.current().set(usage=llmobs.Usage(1, 2))
bare("x")
llmobs.init(capture_content="some")
"""


def test_types_pass_through(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    out, errors, _ = api.run(["--strict", "--cache-dir", str(tmp_path / "c"), str(file)])
    assert errors == ""
    assert '"def (n: int, *, loud: bool =) -> str"' in out
    assert '"def (prompt: str) -> Coroutine[Any, Any, bytes]"' in out.replace("typing.", "")
    assert "Iterator[str]" in out
    assert '"def (n: int) -> float"' in out
    assert "Ids" in out
    assert "Mapping[str, int]" in out
    found = [line for line in out.splitlines() if ": error:" in line]
    assert len(found) == 2, out
    assert 'Argument 1 to "bare"' in found[0]
    assert 'Argument "capture_content"' in found[1]


def test_every_public_name_is_there() -> None:
    for name in llmobs.__all__:
        assert getattr(llmobs, name) is not None
    assert set(llmobs.__all__) <= set(dir(llmobs))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = llmobs.no_such_name
