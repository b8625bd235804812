from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import Usage as ListedUsage

from llmobs.errors import ConfigurationError
from llmobs.measures.cost import Bill, Call, Override, PriceBook, UnpricedModel, Usage
from llmobs.measures.cost.catalog import Plan
from llmobs.measures.cost.prices import _charge

NAN: Final = math.nan


def ns(moment: str) -> int:
    return int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()) * 10**9


NOON: Final = ns("2026-10-01T12:00:00")


def usage(*rows: tuple[float, ...]) -> Usage:
    """Rows of input, output, cache read, cache write, reasoning; the rest is not known."""
    table = np.full((len(rows), 5), NAN)
    for row, values in enumerate(rows):
        table[row, : len(values)] = values
    return Usage(*table.T)


def bill_of(call: Call, *row: float, ts_ns: int = NOON, book: PriceBook | None = None) -> Bill:
    book = book or PriceBook()
    return book.bill([call], np.array([0]), np.array([ts_ns]), usage(row))


def price_of(call: Call, *row: float, **more: Any) -> float:
    return float(bill_of(call, *row, **more).total[0])


# Bills worked out by hand from the providers' published prices in USD per million tokens:
# (input - cached) x price + cache read x price + cache write x price + output x price.
BILLS: Final = [
    ("openai", "gpt-4o-2024-08-06", (1000, 500), 1000 * 2.5 + 500 * 10),
    ("openai", "gpt-4o", (1000, 500, 400), 600 * 2.5 + 400 * 1.25 + 500 * 10),
    ("openai", "gpt-4o-mini", (10_000, 2000), 10_000 * 0.15 + 2000 * 0.6),
    ("openai", "gpt-4.1", (5000, 100, 1000), 4000 * 2 + 1000 * 0.5 + 100 * 8),
    ("openai", "o3-mini", (1000, 3000, 0, 0, 2500), 1000 * 1.1 + 3000 * 4.4),
    ("openai", "ft:gpt-4o-mini-2024-07-18:acme::x", (1000, 100), 1000 * 0.3 + 100 * 1.2),
    ("openai", "text-embedding-3-small", (8000,), 8000 * 0.02),
    ("azure.ai.openai", "gpt-4o", (1000, 500, 400), 600 * 2.5 + 400 * 1.25 + 500 * 10),
    (
        "anthropic",
        "claude-3-5-sonnet-20241022",
        (10_000, 1000, 6000, 2000),
        2000 * 3 + 6000 * 0.3 + 2000 * 3.75 + 1000 * 15,
    ),
    ("anthropic", "claude-3-haiku-20240307", (1000, 1000), 1000 * 0.25 + 1000 * 1.25),
    ("anthropic", "claude-opus-4-20250514", (100, 200), 100 * 15 + 200 * 75),
    (
        "aws.bedrock",
        "us.anthropic.claude-sonnet-4-20250514-v1:0",
        (1000, 100, 500),
        500 * 3 + 500 * 0.3 + 100 * 15,
    ),
    ("aws.bedrock", "amazon.nova-lite-v1:0", (1000, 1000), 1000 * 0.06 + 1000 * 0.24),
    ("gcp.gemini", "gemini-2.5-pro", (200_000, 10), 200_000 * 1.25 + 10 * 10),
    ("gcp.gemini", "gemini-2.5-pro", (200_001, 10), 200_001 * 2.5 + 10 * 15),
    ("gcp.vertex_ai", "publishers/google/models/gemini-2.5-pro", (100, 10), 100 * 1.25 + 10 * 10),
    ("gcp.gen_ai", "models/gemini-2.5-pro", (100, 10), 100 * 1.25 + 10 * 10),
    ("mistral_ai", "mistral-large-latest", (1000, 1000), 1000 * 2 + 1000 * 6),
    ("groq", "llama-3.3-70b-versatile", (1000, 1000), 1000 * 0.59 + 1000 * 0.79),
    ("cohere", "command-r-plus", (1000, 1000), 1000 * 2.5 + 1000 * 10),
    ("x_ai", "grok-3", (1000, 1000), 1000 * 3 + 1000 * 15),
    ("perplexity", "sonar", (1000, 1000), 1000 * 1 + 1000 * 1 + 12e-3 * 1e6),
    ("", "gpt-4o", (1000, 500), 1000 * 2.5 + 500 * 10),
]


@pytest.mark.parametrize(("provider", "model", "tokens", "micro_usd"), BILLS)
def test_a_bill_is_what_the_provider_publishes(
    provider: str, model: str, tokens: tuple[float, ...], micro_usd: float
) -> None:
    row = tokens if len(tokens) > 1 else (*tokens, NAN)
    assert price_of(Call(provider, "", model), *row) == pytest.approx(micro_usd / 1e6, rel=1e-9)


def test_every_listed_model_costs_what_the_lists_own_arithmetic_says() -> None:
    chance = np.random.default_rng(0)
    counted = {"input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok"}
    counted |= {"output_reasoning_mtok", "requests_kcount"}
    moments = [
        ns(f"20{y}-{m:02}-15T{h:02}:30:00") for y in (24, 25, 26) for m in (1, 9) for h in (2, 12)
    ]
    n_compared = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            for ts_ns in moments:
                moment = datetime.fromtimestamp(ts_ns // 10**9, UTC)
                listed = model.get_prices(moment)
                if listed.input_mtok is None and listed.output_mtok is None:
                    continue
                read, write = (int(x) for x in chance.integers(0, 90_000, 2))
                row = (read + write + int(chance.integers(0, 400_000)), 2_000, read, write, 500)
                known = dict(
                    zip(
                        ("input", "output", "cache_read", "cache_write", "output_reasoning"),
                        row,
                        strict=True,
                    )
                )
                used = ListedUsage(**{f"{name}_tokens": n for name, n in known.items()})
                expected = float(listed.calc_price(used)["total_price"])
                got = _price_at(provider.id, model, ts_ns, row)
                assert got == pytest.approx(expected, rel=1e-9), (provider.id, model.id, moment)
                n_compared += 1
    assert n_compared > 10_000


def _price_at(provider: str, model: Any, ts_ns: int, row: tuple[int, ...]) -> float:
    ((rates, _),) = Plan(model).over(np.array([ts_ns]))
    return float(_charge(rates, np.array(row, dtype=np.float64)[:, None]).sum())


def test_prices_change_with_the_date_and_with_the_hour() -> None:
    # deepseek-v4-pro: 0.435 until 2026-08-17, then 0.66, and 1.32 from 01:00 to 04:00 UTC.
    moments = [
        "2026-08-16T12:00:00",
        "2026-08-17T00:00:00",
        "2026-08-18T01:00:00",
        "2026-08-18T04:00:00",
    ]
    call = Call("deepseek", "deepseek-v4-pro", "")
    totals = PriceBook().price(
        [call],
        np.zeros(4, dtype=np.int64),
        np.array([ns(moment) for moment in moments]),
        usage(*[(1e6, 0.0)] * 4),
    )
    assert totals == pytest.approx([0.435, 0.66, 1.32, 0.66])


def test_a_bill_tells_its_kinds_apart() -> None:
    call = Call("anthropic", "claude-3-5-sonnet-20241022", "")
    bill = bill_of(call, 10_000, 1000, 6000, 2000)
    assert bill.input[0] == pytest.approx(2000 * 3e-6)
    assert bill.cache_read[0] == pytest.approx(6000 * 0.3e-6)
    assert bill.cache_write[0] == pytest.approx(2000 * 3.75e-6)
    assert bill.output[0] == pytest.approx(1000 * 15e-6)
    assert bill.request[0] == 0


def test_the_model_that_answered_decides_and_the_one_asked_for_stands_in() -> None:
    answered = Call("openai", "gpt-4o-mini-2024-07-18", "gpt-4o")
    assert price_of(answered, 1e6, 0.0) == pytest.approx(0.15)
    unheard_of = Call("openai", "snapshot-of-tomorrow", "gpt-4o")
    assert price_of(unheard_of, 1e6, 0.0) == pytest.approx(2.5)


def test_a_service_tier_has_its_own_price() -> None:
    flex, usual = (Call("openai", "gpt-5", "", tier) for tier in ("flex", ""))
    # The list has prices of gpt-5's tiers from 2026-10-12 on; before, the usual price stands in.
    for day, share in (("2026-10-11", 1.0), ("2026-10-12", 0.5)):
        at = ns(f"{day}T00:00:00")
        expected = price_of(usual, 1e6, 0.0, ts_ns=at) * share
        assert price_of(flex, 1e6, 0.0, ts_ns=at) == pytest.approx(expected)
    assert price_of(Call("openai", "gpt-4o", "", "no-such-tier"), 1e6, 0.0) == pytest.approx(2.5)


@pytest.mark.parametrize(
    "tokens",
    [
        (NAN, NAN),
        (1000, NAN),
        (NAN, 1000),
        (100, 10, 101),
        (100, 10, 60, 60),
        (-1, 10),
        (10, -1),
        (10, 10, -1),
    ],
)
def test_usage_that_is_unknown_or_absurd_has_no_price(tokens: tuple[float, ...]) -> None:
    bill = bill_of(Call("anthropic", "claude-3-5-sonnet-20241022", ""), *tokens)
    assert np.isnan(np.stack([bill.total, bill.input, bill.output, bill.request])).all()


def test_a_free_model_costs_nothing_but_unknown_usage_stays_unknown() -> None:
    book = PriceBook({"home/*": Override(input=0, output=0)})
    call = Call("home", "llama", "")
    assert price_of(call, 10, 10, book=book) == 0
    assert math.isnan(price_of(call, NAN, NAN, book=book))


@pytest.mark.parametrize(
    "call",
    [
        Call("openai", "", "nothing-like-it"),
        Call("a-host-of-ours", "", "gpt-4o"),
        Call("ollama", "", "llama3"),
        Call("openai", "", ""),
        Call("", "", ""),
    ],
)
def test_a_model_that_nobody_lists_has_no_price_and_is_named(call: Call) -> None:
    book = PriceBook()
    assert math.isnan(price_of(call, 10, 10, book=book))
    assert book.unpriced() == [UnpricedModel(call.provider, call.request_model, 1)]


def test_unpriced_models_are_counted_most_first() -> None:
    book = PriceBook()
    calls = [Call("p", "", "a"), Call("p", "", "b"), Call("openai", "", "gpt-4o")]
    which = np.array([0, 1, 1, 2, 1])
    book.price(calls, which, np.full(5, NOON), usage(*[(1.0, 1.0)] * 5))
    book.price(calls, np.array([0]), np.array([NOON]), usage((1.0, 1.0)))
    assert book.unpriced() == [UnpricedModel("p", "b", 3), UnpricedModel("p", "a", 2)]


def test_names_without_end_take_no_memory_without_end() -> None:
    book = PriceBook()
    n = 12_000
    calls = [Call("p", "", str(i)) for i in range(n)]
    book.price(calls, np.arange(n), np.full(n, NOON), usage(*[(1.0, 1.0)] * n))
    assert len(book.unpriced()) == 10_000


@pytest.mark.parametrize("pattern", ["gpt-4o", "GPT-4*", "openai/gpt-4o", "openai/*", "*"])
def test_ones_own_price_wins(pattern: str) -> None:
    book = PriceBook({pattern: {"input": 1.0, "output": 2.0}})
    # Cached tokens without a price of their own are charged as input.
    assert price_of(Call("openai", "gpt-4o", ""), 1e6, 1e6, 5e5, book=book) == pytest.approx(3.0)


def test_the_first_pattern_that_fits_wins_and_others_keep_the_list() -> None:
    book = PriceBook(
        {
            "gpt-4o": Override(input=1, output=1, cache_read=0.5, cache_write=2),
            "gpt-*": Override(input=9, output=9),
        }
    )
    cached = (1e6, 0.0, 2e5, 3e5)
    assert price_of(Call("openai", "gpt-4o", ""), *cached, book=book) == pytest.approx(
        0.5 * 1 + 0.2 * 0.5 + 0.3 * 2
    )
    assert price_of(Call("openai", "gpt-4.1", ""), 1e6, 0.0, book=book) == pytest.approx(9)
    assert price_of(Call("openai", "o3-mini", ""), 1e6, 0.0, book=book) == pytest.approx(1.1)


@pytest.mark.parametrize(
    "override",
    [
        {},
        {"input": 1.0},
        {"input": 1.0, "output": 1.0, "per_call": 1.0},
        {"input": -1.0, "output": 1.0},
    ],
)
def test_a_price_of_ones_own_that_makes_no_sense_is_refused(override: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="override"):
        PriceBook({"gpt-4o": override})


def test_many_rows_are_priced_as_each_alone() -> None:
    chance = np.random.default_rng(1)
    calls = [
        Call("openai", "", "gpt-4o"),
        Call("gcp.gemini", "", "gemini-2.5-pro"),
        Call("deepseek", "", "deepseek-chat"),
        Call("p", "", "unknown"),
    ]
    n = 200
    which = chance.integers(0, len(calls), n)
    ts_ns = chance.integers(ns("2026-08-01T00:00:00"), NOON, n)
    rows = [tuple(map(float, (x + 500_000, y, x))) for x, y in chance.integers(0, 9_000, (n, 2))]
    book = PriceBook()
    together = book.price(calls, which, ts_ns, usage(*rows))
    alone = [
        price_of(calls[k], *row, ts_ns=int(at))
        for k, at, row in zip(which, ts_ns, rows, strict=True)
    ]
    assert together == pytest.approx(alone, nan_ok=True)


def test_no_calls_make_no_bill() -> None:
    assert PriceBook().price([], np.zeros(0, np.int64), np.zeros(0, np.int64), usage()).shape == (
        0,
    )
