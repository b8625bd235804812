from __future__ import annotations

import gc

import numpy as np

from llmobs.analyzer.score import Batch, ScoringInput, Target, Verdicts
from llmobs.analyzer.score.once import once_a_batch
from llmobs.measures.text import TextEncoder
from tests.analyzer.score.spans import chat, spans


class Counting:
    n_asked = 0

    @once_a_batch
    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        Counting.n_asked += 1
        return Verdicts(np.full(len(batch.spans), Counting.n_asked, float), [""], [""])


def batch() -> Batch:
    return Batch(spans([chat("How are you?")]), TextEncoder.load())


def test_a_batch_is_judged_once_whichever_instance_is_asked() -> None:
    first, other = batch(), batch()  # equal, but not the same
    asked = [
        Counting().score(first, "output"),
        Counting().score(first, "output"),
        Counting().score(other, "output"),
        Counting().score(other, "input"),
        Counting().score(first, "output"),
    ]
    assert [verdicts.values[0] for verdicts in asked] == [1, 1, 2, 3, 4]


def test_a_batch_is_not_kept_alive() -> None:
    one = batch()
    before = Counting().score(one, "output").values[0]
    del one
    gc.collect()
    assert Counting().score(batch(), "output").values[0] == before + 1
