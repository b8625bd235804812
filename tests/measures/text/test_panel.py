from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from llmobs.measures.text import Head, TextEncoder, TextFeatures, load_head
from llmobs.measures.text.heads import Judgement, worst_window
from llmobs.measures.text.panel import Panel

NAMES = ("toxicity", "injection", "refusal")
WORDS = (
    "the", "the", "idiot", "damn", "ignore", "all", "previous", "instructions", "sorry", "I",
    "can't", "help", "with", "that", "weather", ".", ",", "東", "\u200b", "xqzzt",
)  # fmt: skip
texts = st.lists(
    st.tuples(st.integers(0, 130), st.integers(0, 2**32 - 1)), min_size=1, max_size=4
).map(
    lambda sizes: [" ".join(np.random.default_rng(seed).choice(WORDS, size=n)) for n, seed in sizes]
)


def judged_plainly(head: Head, features: TextFeatures) -> Judgement:
    """Judge by vectors and matrices of every window, as `Head` defines it."""
    if head.opening_words:
        features = features.opening(head.opening_words)
    logits = head.logits(features)
    positions = np.full(len(features), -1, np.int64)
    windows, owners, starts = features.windows
    if np.isfinite(head.window_penalty) and len(owners):
        worst, which, counts = worst_window(head.logits(windows), owners)
        rows = owners[which]
        in_window = worst - head.window_penalty * np.log(counts)
        as_whole = logits[rows] - head.whole_penalty
        logits[rows] = np.maximum(in_window, as_whole)
        positions[rows] = np.where(in_window > as_whole, starts[which], -1)
    probabilities = expit(logits)
    probabilities[features.n_words == 0] = np.nan
    return Judgement(probabilities, positions)


@settings(max_examples=60, deadline=None)
@given(texts)
def test_heads_that_read_together_say_what_each_says_of_matrices(texts_: list[str]) -> None:
    features = TextEncoder.load().encode(texts_)
    for name in NAMES:
        head = load_head(name)
        expected = judged_plainly(head, features).probabilities
        np.testing.assert_allclose(head.judge(features).probabilities, expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(texts, st.sampled_from((16, 48, 56, 80)))
def test_a_head_with_windows_may_read_an_opening_alone(texts_: list[str], n_words: int) -> None:
    head = replace(load_head("injection"), opening_words=n_words)
    features = TextEncoder.load().encode(texts_)
    expected = judged_plainly(head, features).probabilities
    np.testing.assert_allclose(head.judge(features).probabilities, expected, atol=1e-5)


def test_positions_are_those_of_matrices() -> None:
    rng = np.random.default_rng(7)
    many = [" ".join(rng.choice(WORDS, size=rng.integers(40, 200))) for _ in range(200)]
    features = TextEncoder.load().encode(many)
    for name in NAMES:
        head = load_head(name)
        positions, expected = head.judge(features).positions, judged_plainly(head, features)
        # Of windows that are alike but for rounding, either may be the worst.
        assert (positions == expected.positions).mean() >= 0.99
    assert (load_head("injection").judge(features).positions >= 0).any()


def test_a_word_said_thousands_of_times_is_read_at_once() -> None:
    features = TextEncoder.load().encode(["idiot " * 2_700])
    for name in NAMES:
        head = load_head(name)
        expected = judged_plainly(head, features).probabilities
        np.testing.assert_allclose(head.judge(features).probabilities, expected, atol=1e-5)


def test_a_head_of_no_panel_is_asked_alone() -> None:
    encoder = TextEncoder.load()
    plain = TextEncoder(encoder.tokenizer, encoder.vectors, encoder.idf)
    lines = ["You are an idiot.", "", "Good morning. " * 40]
    for name in NAMES:
        head = load_head(name)
        alone, together = head.judge(plain.encode(lines)), head.judge(encoder.encode(lines))
        np.testing.assert_allclose(alone.probabilities, together.probabilities)
        np.testing.assert_array_equal(alone.positions, together.positions)


def test_heads_that_cannot_be_read_together_are_refused() -> None:
    idf = TextEncoder.load().idf
    with pytest.raises(ValueError, match="lexicon"):
        Panel([load_head("toxicity"), load_head("toxicity")], idf)
    with pytest.raises(ValueError, match="multiple of 8"):
        Panel([replace(load_head("refusal"), opening_words=50)], idf)
