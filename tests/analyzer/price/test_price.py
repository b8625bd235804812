from __future__ import annotations

from typing import Any

import pytest

from llmobs.analyzer.price import price
from llmobs.measures.cost import PriceBook, UnpricedModel
from llmobs.records import SPAN_SCHEMA, SpanBatch
from tests.analyzer.store.rows import spans

CALL: dict[str, Any] = {
    "operation": "chat",
    "provider": "openai",
    "request_model": "gpt-4o",
    "input_tokens": 1_000_000,
    "output_tokens": 0,
}


def costs(batch: SpanBatch, book: PriceBook | None = None) -> list[float | None]:
    priced = price(batch, book or PriceBook())
    assert priced.table.schema.equals(SPAN_SCHEMA)
    assert priced.table.drop_columns("cost_usd").equals(batch.table.drop_columns("cost_usd"))
    column: list[float | None] = priced.table.column("cost_usd").to_pylist()
    return column


@pytest.mark.parametrize("operation", ["chat", "generate_content", "text_completion", "embeddings"])
def test_what_a_provider_bills_is_priced(operation: str) -> None:
    assert costs(spans({**CALL, "operation": operation})) == [pytest.approx(2.5)]


@pytest.mark.parametrize(
    "operation",
    ["", "invoke_agent", "invoke_workflow", "execute_tool", "create_agent", "retrieval", "unknown"],
)
def test_what_repeats_the_tokens_of_calls_below_it_is_not_paid_for_again(operation: str) -> None:
    assert costs(spans({**CALL, "operation": operation, "cost_usd": 5.0})) == [None]


def test_what_is_not_known_is_null_and_counted() -> None:
    book = PriceBook()
    batch = spans(
        {**CALL, "input_tokens": None},
        {**CALL, "request_model": "mystery"},
        CALL,
        {**CALL, "operation": "invoke_agent", "request_model": "another"},
    )
    assert costs(batch, book) == [None, None, pytest.approx(2.5), None]
    assert book.unpriced() == [UnpricedModel("openai", "mystery", 1)]


def test_rows_keep_their_places_among_many_models() -> None:
    models = {"gpt-4o": 2.5, "gpt-4o-mini": 0.15, "gpt-4.1": 2.0}
    names = [list(models)[i * i % 3] for i in range(50)]
    batch = spans(*({**CALL, "request_model": name} for name in names))
    assert costs(batch) == [pytest.approx(models[name]) for name in names]


def test_the_tier_that_answered_is_read_from_the_attributes() -> None:
    tier = [("openai.response.service_tier", "flex")]
    # From 2026-10-12 on the list has prices of this model's tiers.
    call = {**CALL, "request_model": "gpt-5", "ts_ns": 1_792_000_000 * 10**9}
    flex, usual = costs(
        spans({**call, "attributes_s": tier}, {**call, "attributes_s": [("other", "flex")]})
    )
    assert flex is not None
    assert usual is not None
    assert flex == pytest.approx(usual / 2)


def test_a_sliced_batch_is_priced_like_a_whole_one() -> None:
    batch = spans(CALL, {**CALL, "request_model": "gpt-4o-mini"}, CALL)
    assert costs(SpanBatch(batch.table.slice(1))) == [pytest.approx(0.15), pytest.approx(2.5)]


def test_an_empty_batch_stays_empty() -> None:
    assert costs(spans()) == []
