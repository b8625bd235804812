"""`llmobs scorers`, on a file of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llmobs.cli.commands import cli

OWN = """
import llmobs

@llmobs.scorer
def words(text: str) -> float:
    return len(text.split())
"""
LEAKY = """
import llmobs

@llmobs.scorer
def leaky(text: str) -> llmobs.Verdict:
    return llmobs.Verdict(1, "pass", text)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["scorers", *words])


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_list_shows_what_is_installed_and_what_the_settings_add(own: Path, tmp_path: Path) -> None:
    config = tmp_path / "llmobs.toml"
    gone = tmp_path / "gone.py"
    config.write_text(f"scorers = ['pii']\nscorer_files = [{str(own)!r}, {str(gone)!r}]\n")
    result = run("list", "--config", str(config), "--json")
    assert result.exit_code == 0
    rows = {row["name"]: row for row in lines(result)}
    assert (rows["pii"]["runs"], rows["toxicity"]["runs"]) == (True, False)
    assert (rows["words"]["runs"], rows["words"]["source"]) == (True, str(own))
    assert rows["words"]["targets"] == ["output"]
    assert "no Python file" in rows["gone"]["error"]


def test_a_file_that_keeps_the_contract_passes(own: Path) -> None:
    result = run("test", str(own), "--json")
    assert result.exit_code == 0
    (row,) = lines(result)
    assert (row["name"], row["ok"], row["problem"]) == ("words", True, "")


def test_a_file_that_breaks_it_fails_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "leaky.py"
    path.write_text(LEAKY)
    result = run("test", str(path), "--json")
    assert result.exit_code == 1
    assert "quotes a text" in lines(result)[0]["problem"]
    assert run("test", str(path)).exit_code == 1


def test_a_file_that_is_not_there_is_a_wrong_use(tmp_path: Path) -> None:
    result = run("test", str(tmp_path / "none.py"))
    assert result.exit_code == 2
    assert "no Python file" in result.stderr


def test_bench_measures_the_scorers_of_a_file_beside_what_all_share(own: Path) -> None:
    result = run("bench", "--file", str(own), "--json")
    assert result.exit_code == 0
    rows = lines(result)
    assert [(row["name"], row["target"]) for row in rows] == [
        ("(shared)", "both"),
        ("words", "output"),
    ]
    assert all(row["spans_per_cpu_s"] > 0 for row in rows)
