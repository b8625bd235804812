from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from llmobs.analyzer.score import (
    Scorer,
    ScoreStage,
    ScoringInput,
    Target,
    Verdicts,
    load_scorers,
)
from llmobs.errors import ConfigurationError
from tests.analyzer.score.spans import chat, spans


@dataclass
class Fake:
    """A scorer that does what it is told, and counts."""

    name: str
    act: Callable[[ScoringInput], Verdicts]
    targets: Sequence[Target] = ("input",)
    version: str = "1"
    n_calls: int = field(default=0)

    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        self.n_calls += 1
        return self.act(batch)


def ones(batch: ScoringInput) -> Verdicts:
    n = len(batch.spans)
    return Verdicts(np.ones(n), ["pass"] * n, [""] * n)


def broken(batch: ScoringInput) -> Verdicts:
    raise ValueError(batch.distinct("input").texts[0])


def stage(*scorers: Scorer, clock: Callable[[], float] = lambda: 0.0) -> ScoreStage:
    return ScoreStage(scorers, time_box_s=5, clock=clock)


def test_a_failing_scorer_costs_its_own_column_only(caplog: pytest.LogCaptureFixture) -> None:
    scoring = stage(Fake("first", ones), Fake("bad", broken), Fake("last", ones))
    scores = scoring.score(spans([chat("my secret question")]))
    assert [column.name for column in scores.columns] == ["first", "last"]
    assert dict(scores.failed) == {"bad": "raised ValueError"}
    assert dict(scoring.n_failures) == {"first": 0, "bad": 1, "last": 0}
    assert "secret" not in caplog.text + str([record.__dict__ for record in caplog.records])


def test_a_slow_scorer_is_left_behind_and_not_asked_while_it_is_busy() -> None:
    release = threading.Event()
    done = threading.Event()

    def slow(batch: ScoringInput) -> Verdicts:
        release.wait(30)
        done.set()
        return ones(batch)

    fake = Fake("slow", slow)
    scoring = ScoreStage([fake, Fake("quick", ones)], time_box_s=0.05)
    first = scoring.score(spans([chat("x")]))
    second = scoring.score(spans([chat("x")]))
    assert [column.name for column in first.columns] == ["quick"]
    assert first.failed["slow"].startswith("took longer")
    assert second.failed["slow"].startswith("still busy")
    assert fake.n_calls == 1
    release.set()
    assert done.wait(5)
    for thread in threading.enumerate():
        if thread.name == "scorer-slow":
            thread.join(5)
    assert [c.name for c in scoring.score(spans([chat("x")])).columns] == ["slow", "quick"]


def test_a_large_batch_is_scored_in_slices_and_comes_out_whole() -> None:
    sizes: list[int] = []

    def count(batch: ScoringInput) -> Verdicts:
        sizes.append(len(batch.spans))
        texts = batch.spans.texts("input_text")
        return Verdicts(np.array([float(text[1:]) for text in texts]), texts, texts)

    scores = stage(Fake("count", count)).score(spans([chat(f"q{i}", "a") for i in range(2500)]))
    assert max(sizes) <= 1024
    (column,) = scores.columns
    np.testing.assert_array_equal(column.values, np.arange(2500))
    assert column.labels == column.explanations == [f"q{i}" for i in range(2500)]
    assert scores.embeddings["input"].shape == (2500, 256)


def test_a_scorer_that_fails_on_one_slice_has_no_column_and_failed_once() -> None:
    def fail_later(batch: ScoringInput) -> Verdicts:
        if "q0" not in batch.spans.texts("input_text"):
            raise ValueError
        return ones(batch)

    fake = Fake("later", fail_later)
    scoring = stage(fake, Fake("good", ones))
    scores = scoring.score(spans([chat(f"q{i}") for i in range(4000)]))
    assert [column.name for column in scores.columns] == ["good"]
    assert dict(scores.failed) == {"later": "raised ValueError"}
    assert dict(scoring.n_failures) == {"later": 1, "good": 0}
    assert fake.n_calls == 2


def test_the_time_box_is_for_the_batch_and_not_for_each_slice() -> None:
    release = threading.Event()

    def dawdle(batch: ScoringInput) -> Verdicts:
        release.wait(0.4)
        return ones(batch)

    scoring = ScoreStage([Fake("dawdle", dawdle)], time_box_s=1.0)
    scores = scoring.score(spans([chat(f"q{i}") for i in range(4000)]))
    release.set()
    assert scores.failed["dawdle"].startswith("took longer")


def test_no_thread_outlives_a_batch() -> None:
    before = set(threading.enumerate())
    stage(Fake("one", ones), Fake("two", ones)).score(spans([chat("a")]))
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    assert set(threading.enumerate()) <= before


def test_after_three_failures_in_a_row_a_scorer_is_paused_and_then_tried_again() -> None:
    now_s = 0.0
    fake = Fake("bad", broken)
    scoring = stage(fake, clock=lambda: now_s)
    batch = spans([chat("x")])
    for _ in range(5):
        scores = scoring.score(batch)
    assert fake.n_calls == 3
    assert scores.failed["bad"].startswith("paused")
    now_s = 61.0
    fake.act = ones
    assert [column.name for column in scoring.score(batch).columns] == ["bad"]
    fake.act = broken
    scoring.score(batch)
    scoring.score(batch)
    assert fake.n_calls == 6  # a success wipes the slate


@pytest.mark.parametrize(
    ("values", "labels", "explanations", "reason"),
    [
        (np.ones(1), ["pass"] * 2, [""] * 2, "for 2 spans"),
        (np.ones(2), ["pass"], [""] * 2, "for 2 spans"),
        (np.ones((2, 1)), ["pass"] * 2, [""] * 2, "for 2 spans"),
        (np.array([0.5, np.inf]), ["pass"] * 2, [""] * 2, "infinite"),
        (np.ones(2), ["pass", None], [""] * 2, "no texts"),
        (np.ones(2), ["pass"] * 2, ["", 3], "no texts"),
        (["high", "low"], ["pass"] * 2, [""] * 2, "raised ValueError"),
    ],
)
def test_verdicts_that_would_break_what_comes_after_are_refused(
    values: Any, labels: Any, explanations: Any, reason: str
) -> None:
    odd = Fake("odd", lambda _: Verdicts(values, labels, explanations))
    scores = stage(odd, Fake("good", ones)).score(spans([chat("a"), chat("b")]))
    assert [column.name for column in scores.columns] == ["good"]
    assert reason in scores.failed["odd"]


def test_no_scorer_is_charged_for_the_features_that_all_share() -> None:
    seen: list[bool] = []

    def look(batch: ScoringInput) -> Verdicts:
        seen.append("features" in vars(batch.distinct("input")))
        return ones(batch)

    stage(Fake("first", look)).score(spans([chat("a")]))
    assert seen == [True]


def test_a_text_is_judged_once_however_often_it_comes() -> None:
    seen: list[Sequence[str]] = []

    def look(batch: ScoringInput) -> Verdicts:
        seen.append(batch.distinct("input").texts)
        return ones(batch)

    stage(Fake("look", look)).score(spans([chat("again"), chat("new"), chat("again")]))
    assert seen == [["again", "new"]]


def test_features_are_computed_once_for_all_scorers() -> None:
    seen: list[int] = []

    def look(batch: ScoringInput) -> Verdicts:
        seen.append(id(batch.distinct("input").features))
        return ones(batch)

    stage(Fake("one", look), Fake("two", look)).score(spans([chat("a")]))
    assert len(seen) == 2
    assert len(set(seen)) == 1


def test_one_column_a_target() -> None:
    scores = stage(Fake("both", ones, targets=("output", "input"))).score(spans([chat("a", "b")]))
    assert [(column.name, column.target) for column in scores.columns] == [
        ("both", "output"),
        ("both", "input"),
    ]


def test_embeddings_are_unit_vectors_or_nan_row_for_row() -> None:
    scores = stage().score(
        spans(
            [
                chat("a question", "an answer"),
                chat("a question", ""),
                {"operation": "invoke_workflow", "input_text": "a question"},
            ]
        )
    )
    inputs, outputs = scores.embeddings["input"], scores.embeddings["output"]
    assert inputs.dtype == np.float32
    assert inputs.shape == outputs.shape == (3, 256)
    np.testing.assert_allclose(np.linalg.norm(inputs[:2], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(inputs[0], inputs[1])
    assert np.isnan(inputs[2]).all()
    assert np.isnan(outputs[1:]).all()
    assert np.isfinite(outputs[0]).all()


def test_the_same_spans_get_the_same_scores() -> None:
    scoring = ScoreStage(load_scorers(), time_box_s=30)
    batch = spans([chat(f"question {i} about cats?", f"answer {i}: cats sleep") for i in range(20)])
    first, second = scoring.score(batch), scoring.score(batch)
    assert not first.failed
    for a, b in zip(first.columns, second.columns, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
        assert (a.labels, a.explanations) == (b.labels, b.explanations)


def test_an_empty_batch_has_empty_columns() -> None:
    scores = ScoreStage(load_scorers(), time_box_s=30).score(spans([]))
    assert not scores.failed
    assert all(len(column.values) == 0 for column in scores.columns)
    assert scores.embeddings["input"].shape == (0, 256)


def test_an_unknown_scorer_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="no plugin 'nonsense'"):
        load_scorers(["nonsense"])


def test_two_scorers_of_one_name_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="two scorers"):
        stage(Fake("twin", ones), Fake("twin", ones))
