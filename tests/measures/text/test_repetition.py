from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmobs.measures.text import REPETITION_THRESHOLD, repetition, stuck
from llmobs.measures.text.train.corpora import Corpora

HELD_OUT = Corpora(Path(__file__).parent / "data", held_out=True)
BEGIN = "Here are the opening times of our three shops in the old town, as you asked for them. "


@pytest.mark.parametrize(
    "loop",
    [
        "the ",
        "!",
        "I am sorry. ",
        "The shop in the harbour street opens at nine and closes at noon, except on Sundays. ",
        '{"shop": "harbour", "opens": 9}, ',
        "我不知道",
    ],
)
def test_a_loop_fails_and_its_begin_is_told(loop: str) -> None:
    values, starts = stuck([BEGIN + loop * 200])
    assert values[0] >= 0.8
    # Two rounds are not counted, and a run may begin in the words before them.
    assert 2 <= starts[0] <= 18 + 2 * 20


@given(st.lists(st.integers(0, 3), max_size=60))
def test_the_value_is_the_share_of_runs_said_twice_before(numbers: list[int]) -> None:
    words = [f"w{number}" for number in numbers] * 3
    runs = [tuple(words[i : i + 16]) for i in range(len(words) - 15)]
    counted = [i for i, run in enumerate(runs) if runs[:i].count(run) >= 2]
    values, starts = stuck([" ".join(words)])
    if len(words) < 32:
        assert np.isnan(values[0])
    else:
        assert values[0] == pytest.approx(len(counted) / len(runs))
        assert starts[0] == (counted[0] if counted else -1)


def test_no_benign_answer_or_prompt_comes_near_the_threshold() -> None:
    texts = HELD_OUT.related("relevance_halueval")
    texts += [row["text"] for row in HELD_OUT.rows("benign_prompts")]
    values = repetition(texts)
    assert np.isfinite(values).sum() > 100
    assert np.nanmax(values) < REPETITION_THRESHOLD / 2


def test_tables_and_drawn_lines_are_no_loops() -> None:
    rows = "\n".join(f"| {i} | {i * 7 % 31} kg | {i * i} EUR |" for i in range(40))
    table = f"| n | weight | price |\n|{'-' * 80}|\n{rows}\n{'=' * 400}"
    assert repetition([table])[0] < 0.05


def test_short_answers_have_no_value() -> None:
    assert np.isnan(repetition(["", "no " * 31])).all()
    assert repetition(["no " * 32])[0] > 0.5
    assert repetition([]).shape == (0,)
