from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa

from llmobs.analyzer.store.seen import Seen, span_keys


def keys_of(ids: list[tuple[bytes, bytes]]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    traces, spans = zip(*ids, strict=True)
    table = pa.table(
        {"trace_id": pa.array(traces, pa.binary(16)), "span_id": pa.array(spans, pa.binary(8))}
    )
    return span_keys(table)


def test_ids_that_count_up_get_keys_of_their_own() -> None:
    """Some id generators count; in each byte order."""
    for order in ("big", "little"):
        ids = [
            (trace.to_bytes(16, order), span.to_bytes(8, order))
            for trace, span in itertools.product(range(1, 300), range(1, 300))
        ]
        assert len(np.unique(keys_of(ids))) == len(ids)


def test_the_same_ids_have_the_same_key_and_zeros_have_none() -> None:
    span = (b"t" * 16, b"s" * 8)
    nameless = (b"t" * 16, bytes(8))
    first, second, third, fourth = keys_of([span, span, nameless, nameless])
    assert first == second
    assert third != fourth


def test_the_window_remembers_at_least_half_of_its_capacity_and_stays_within_it() -> None:
    seen = Seen(1000)
    batches = np.arange(5000, dtype=np.uint64).reshape(50, 100)
    for batch in batches:
        assert seen.first_seen(batch).all()
        seen.add(batch)
        assert len(seen) <= 1000
    assert not seen.first_seen(batches[-5:].ravel()).any()


def test_a_repeat_within_a_batch_is_not_new() -> None:
    assert Seen(10).first_seen(np.array([7, 8, 7], np.uint64)).tolist() == [True, True, False]
