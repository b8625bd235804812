from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from llmobs.measures.text import TextEncoder, load_head
from llmobs.measures.text.features import N_BUCKETS
from llmobs.measures.text.train.corpora import Corpora, Example, digest, is_held_out, padded
from llmobs.measures.text.train.templates import fill


def test_a_tenth_is_held_out_whatever_the_order() -> None:
    texts = [f"text number {i}" for i in range(5000)]
    held_out = [text for text in texts if is_held_out(text)]
    assert len(held_out) / len(texts) == pytest.approx(0.1, abs=0.015)
    assert is_held_out(held_out[0])
    assert digest("a") == int(
        "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", 16
    )


@pytest.mark.parametrize(
    "kind",
    [
        "apologetic_answers", "attacks", "harmless_code", "harmless_documents",
        "harmless_figures", "harmless_instructions", "harmless_requests", "hateful_remarks",
        "kind_remarks", "planted_orders", "refusals", "severe_remarks", "sober_remarks",
    ],
)  # fmt: skip
def test_templates_are_filled_the_same_way_every_time(kind: str) -> None:
    first = fill(kind, 50, random.Random(1))
    assert first == fill(kind, 50, random.Random(1))
    assert len(set(first)) > 20
    assert not any("{thing}" in text or "{group}" in text for text in first)


def test_a_source_that_is_left_out_is_not_read() -> None:
    folder = Path(__file__).parent / "data"
    corpora = Corpora(folder, held_out=True, left_out=frozenset({"toxicity_surge"}))
    assert corpora.rows("toxicity_surge") == []
    assert corpora.rows("toxicity_wikipedia") != []


def test_padding_keeps_the_text_whole() -> None:
    text = padded("the needle", ["some hay", "more hay"], 40, random.Random(2))
    assert "the needle" in text
    assert 40 <= len(text.split()) <= 45


def test_a_head_learns_what_it_is_shown_and_knows_how_sure_it_is(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    from llmobs.measures.text.train.fit import Task, fit_head, ngram_idf

    rng = random.Random(3)
    bad = [Example(f"the {rng.choice(['wolf', 'bear'])} bites {i}", 1, i) for i in range(200)]
    good = [Example(f"the {rng.choice(['lamb', 'duck'])} sleeps {i}", 0, i) for i in range(300)]
    loaded = TextEncoder.load()
    encoder = TextEncoder(loaded.tokenizer, loaded.vectors, np.ones(N_BUCKETS, np.float32))
    encoder.idf = ngram_idf(encoder, [row.text for row in (*bad, *good)])
    head = fit_head(encoder, Task("animals", bad, good))
    wolf, duck = head.judge(encoder.encode(["a wolf bites", "a duck sleeps"])).probabilities
    assert wolf > max(0.9, head.threshold)
    assert duck < 0.1
    again = fit_head(encoder, Task("animals", bad, good))
    assert again.to_bytes() == head.to_bytes()


def test_the_packaged_heads_are_small() -> None:
    assert len(load_head("toxicity").to_bytes()) < 2_000_000
