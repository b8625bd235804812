from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import llmobs
from llmobs.analyzer.score import (
    Batch,
    FunctionScorer,
    ScoreStage,
    Target,
    Verdict,
    Verdicts,
    load_file,
    load_scorers,
)
from llmobs.errors import ConfigurationError
from llmobs.measures.text import TextEncoder
from tests.analyzer.score.spans import chat, spans

OWN = """
import llmobs

@llmobs.scorer(fail_from=3)
def words(text: str) -> float:
    return len(text.split())

also = words

@llmobs.scorer(target="input")
def asks(text: str) -> bool:
    return text.endswith("?")
"""


def verdicts(scorer: FunctionScorer, target: Target, *rows: dict[str, object]) -> Verdicts:
    return scorer.score(Batch(spans(rows), TextEncoder.load()), target)


def test_a_function_judges_each_different_text_once_and_every_span_gets_its_verdict() -> None:
    seen: list[str] = []

    @llmobs.scorer(fail_from=3)
    def words(text: str) -> float:
        seen.append(text)
        return float(len(text.split()))

    rows = (chat("q", "one two"), chat("q", ""), chat("q", "one two three"), chat("q", "one two"))
    values, labels, _ = verdicts(words, "output", *rows)
    np.testing.assert_array_equal(values, [2, np.nan, 3, 2])
    assert labels == ["pass", "", "fail", "pass"]
    assert seen == ["one two", "one two three"]
    assert (words.name, words.targets) == ("words", ("output",))


def test_a_decorated_function_is_the_function_still() -> None:
    @llmobs.scorer
    def words(text: str) -> int:
        return len(text.split())

    assert words("one two") == 2


def test_a_check_passes_or_fails_and_none_says_nothing() -> None:
    @llmobs.scorer(target="input")
    def asks(text: str) -> bool | None:
        return None if "skip" in text else text.endswith("?")

    values, labels, _ = verdicts(asks, "input", chat("Why?"), chat("So."), chat("skip this"))
    np.testing.assert_array_equal(values, [1, 0, np.nan])
    assert labels == ["pass", "fail", ""]


def test_a_batch_function_gets_all_texts_at_once_and_may_label_and_explain() -> None:
    calls: list[Sequence[str]] = []

    @llmobs.scorer(target=("input", "output"), batch=True, label=lambda _: "short")
    def length(texts: Sequence[str]) -> list[Verdict]:
        calls.append(texts)
        return [Verdict(len(t), "long" if len(t) > 3 else "", f"{len(t)} letters") for t in texts]

    rows = (chat("ab", "abcd"), chat("abcde", ""))
    values, labels, explanations = verdicts(length, "input", *rows)
    assert (values.tolist(), labels) == ([2.0, 5.0], ["short", "long"])
    assert explanations == ["2 letters", "5 letters"]
    assert calls == [["ab", "abcde"]]


def test_a_pair_is_a_question_and_its_answer() -> None:
    @llmobs.scorer(target="pair", fail_below=0)
    def longer(question: str, answer: str) -> float:
        return float(len(answer) - len(question))

    rows = (chat("why", "because"), chat("why", ""), chat("a question", "no"), chat("why", "no"))
    values, labels, _ = verdicts(longer, "pair", *rows)
    np.testing.assert_array_equal(values, [4, np.nan, -8, -1])
    assert labels == ["pass", "", "fail", "fail"]


def test_another_number_of_answers_than_texts_is_refused() -> None:
    @llmobs.scorer(batch=True)
    def few(texts: Sequence[str]) -> list[float]:
        return [1.0]

    with pytest.raises(ValueError, match="1 answers for 2 texts"):
        verdicts(few, "output", chat("q", "a"), chat("q", "b"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "No Spaces"}, "can't be called"),
        ({"target": "answer"}, "known: input, output, pair"),
        ({"target": ()}, "known: input, output, pair"),
        ({"target": ("pair", "input")}, "no other target"),
        ({"fail_from": 1, "fail_below": 0}, "one rule"),
    ],
)
def test_a_scorer_that_can_not_be_is_refused_when_it_is_made(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        llmobs.scorer(**arguments)(len)  # type: ignore[call-overload]


def test_an_async_function_is_refused() -> None:
    async def ask(text: str) -> float:
        return 1.0

    with pytest.raises(ConfigurationError, match="async"):
        llmobs.scorer(ask)


def test_the_version_follows_the_source_and_its_rule(tmp_path: Path) -> None:
    versions = []
    for number, text in enumerate((OWN, OWN, OWN.replace("fail_from=3", "fail_from=4"))):
        path = tmp_path / f"{number}.py"
        path.write_text(text)
        versions.append(load_file(path)[0].version)
    assert versions[0] == versions[1] != versions[2]


def test_a_function_without_source_needs_a_version() -> None:
    with pytest.raises(ConfigurationError, match="give the scorer a version"):
        llmobs.scorer(name="length")(len)
    assert llmobs.scorer(name="length", version="1")(len).version == "1"


def test_a_file_gives_each_of_its_scorers_once_after_the_named_ones(tmp_path: Path) -> None:
    path = tmp_path / "scorers.py"
    path.write_text(OWN)
    assert [s.name for s in load_scorers(("refusal",), [path])] == ["refusal", "words", "asks"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.py", None, "no Python file"),
        ("notes.txt", OWN, "no Python file"),
        ("empty.py", "x = 1", "defines no scorer"),
        ("broken.py", "1 / 0", "ZeroDivisionError"),
        ("wrong.py", "def", "SyntaxError"),
    ],
)
def test_a_file_without_usable_scorers_is_a_configuration_error(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_file(tmp_path / name)


def test_a_failing_or_slow_function_costs_its_own_column_only() -> None:
    release = threading.Event()

    @llmobs.scorer
    def failing(text: str) -> float:
        raise RuntimeError(text)

    @llmobs.scorer
    def slow(text: str) -> float:
        release.wait(30)
        return 1.0

    @llmobs.scorer
    def good(text: str) -> float:
        return 1.0

    stage = ScoreStage([failing, slow, good], time_box_s=0.2)
    scores = stage.score(spans([chat("q", "a")]))
    release.set()
    assert [column.name for column in scores.columns] == ["good"]
    assert scores.failed["failing"] == "raised RuntimeError"
    assert scores.failed["slow"].startswith("took longer")
    assert dict(stage.n_failures) == {"failing": 1, "slow": 1, "good": 0}


def test_the_sdk_alone_neither_loads_nor_needs_what_scorers_need() -> None:
    program = """
import sys
sys.modules["numpy"] = None
from llmobs import *
import llmobs
observe
try:
    llmobs.scorer
except ModuleNotFoundError as error:
    assert "llmobs[server]" in str(error), error
else:
    raise SystemExit("numpy was not missed")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_entry_point_may_name_a_decorated_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_scorers.py").write_text(OWN)
    package = tmp_path / "shop_scorers-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: shop-scorers\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[llmobs.scorers]\nwords = shop_scorers:words\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (words,) = load_scorers(["words"])
    assert (words.name, words.targets) == ("words", ("output",))
    monkeypatch.delitem(sys.modules, "shop_scorers")
