"""The price list: genai-prices' packaged data, read as rates a token.

No other file knows genai-prices. Its data come with the package; nothing is fetched. The
arithmetic is our own, over arrays, and tested to give what genai-prices' own gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import (
    ModelInfo,
    ModelPrice,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from llmobs.records import FloatArray

__all__ = ["Plan", "Rate", "Rates", "find"]

_MILLION: Final = 1e6
_THOUSAND: Final = 1e3
_DAY_S: Final = 86_400

# Values of gen_ai.provider.name (now and before) that genai-prices knows by another name. The
# rest it finds by itself: gcp.vertex_ai, aws.bedrock, mistral_ai, moonshot_ai …
_PROVIDERS: Final = {
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "az.ai.openai": "azure",
    "az.ai.inference": "azure",
    "gcp.gen_ai": "google",
    "x_ai": "x-ai",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
}


@dataclass(frozen=True, slots=True)
class Rate:
    """USD a unit, by how long the whole input is.

    Attributes:
        base: The rate up to the first threshold.
        tiers: (input tokens, rate) pairs, ascending; a rate holds above its threshold, and
            for the whole call.
    """

    base: float
    tiers: tuple[tuple[int, float], ...] = ()

    def at(self, input_tokens: FloatArray) -> FloatArray | float:
        """Return the rate of each call, shape (n,) or one for all."""
        if not self.tiers:
            return self.base
        rates = np.full(len(input_tokens), self.base)
        for threshold, rate in self.tiers:
            rates[input_tokens > threshold] = rate
        return rates


@dataclass(frozen=True, slots=True)
class Rates:
    """What one model charges; None where the kind has no price of its own.

    Tokens without a price of their own are charged as the kind that they are part of: cached
    tokens as input, reasoning as output.
    """

    input: Rate | None = None
    cache_read: Rate | None = None
    cache_write: Rate | None = None
    output: Rate | None = None
    reasoning: Rate | None = None
    request: Rate | None = None

    @property
    def known(self) -> bool:
        """Whether tokens have a price at all (speech is sold by the hour)."""
        return self.input is not None or self.output is not None


class Plan:
    """A model's rates over time.

    Args:
        info: The model in the price list; None for fixed rates.
        context: What else a price hangs on, such as the service tier.
        fixed: The rates where they never change.
    """

    def __init__(
        self,
        info: ModelInfo | None = None,
        context: Mapping[str, str] | None = None,
        fixed: Rates | None = None,
    ) -> None:
        self._info = info
        self._context = context or {}
        self._cache: dict[int, Rates] = {} if fixed is None else {0: fixed}
        constraints = [] if info is None else [c for c in _constraints(info) if c is not None]
        dates = {c.start_date for c in constraints if isinstance(c, StartDateConstraint)}
        hours = [c for c in constraints if isinstance(c, TimeOfDateConstraint)]
        # Prices change at these days (since 1970) and at these seconds of every day (UTC).
        self._days = np.array(
            sorted((day - date(1970, 1, 1)).days for day in dates), dtype=np.int64
        )
        self._seconds = np.array(
            sorted({_second(t) for c in hours for t in (c.start_time, c.end_time)}), dtype=np.int64
        )

    def over(self, ts_ns: npt.NDArray[np.int64]) -> Iterator[tuple[Rates, Any]]:
        """Yield each rate that is valid at some row, with the rows, as an index."""
        if not len(self._days) and not len(self._seconds):
            yield self._rates(0, 0), slice(None)
            return
        day, second = np.divmod(ts_ns // 10**9, _DAY_S)
        slots = np.searchsorted(self._days, day, side="right") * (len(self._seconds) + 1)
        slots += np.searchsorted(self._seconds, second, side="right")
        first_rows = np.unique(slots, return_index=True)
        for slot, row in zip(*first_rows, strict=True):
            yield self._rates(int(slot), int(ts_ns[row])), np.flatnonzero(slots == slot)

    def _rates(self, slot: int, ts_ns: int) -> Rates:
        """Return the rates of a slot; any moment in it stands for all."""
        if slot not in self._cache:
            assert self._info is not None
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts_ns // 1000)
            self._cache[slot] = _rates(self._info.get_prices(moment, self._context))
        return self._cache[slot]


def find(provider: str, model: str, service_tier: str) -> Plan | None:
    """Return a model's rates, None where the list doesn't have it.

    Args:
        provider: As in ``gen_ai.provider.name``; "" to infer it from the model's name. A
            provider that the list doesn't know has no prices: the same model costs
            otherwise elsewhere.
        model: As requested or as answered; aliases, dated versions, fine-tunes, regional
            and path-like names are understood.
        service_tier: ``flex``, ``priority`` … as the provider answered, "" for none.
    """
    name = provider.strip().lower()
    for reference in _spellings(model):
        try:
            _, info = get_snapshot().find_provider_model(
                reference, None, _PROVIDERS.get(name, name) or None, None
            )
        except LookupError:
            continue
        return Plan(info, {"service_tier": service_tier} if service_tier else {})
    return None


def _spellings(model: str) -> Iterator[str]:
    if model:
        yield model
    # models/gemini-2.5-pro, publishers/…/models/…, arn:aws:bedrock:…/us.anthropic.claude-…
    _, slash, last = model.rpartition("/")
    if slash and last:
        yield last


def _constraints(info: ModelInfo) -> Iterator[StartDateConstraint | TimeOfDateConstraint | None]:
    if not isinstance(info.prices, ModelPrice):
        yield from (price.constraint for price in info.prices)
    yield from (variant.constraint for variant in info.price_variants or ())


def _second(moment: time) -> int:
    """Return the second of the day in UTC."""
    at = datetime.combine(date(1970, 1, 2), moment, moment.tzinfo or UTC).astimezone(UTC)
    return at.hour * 3600 + at.minute * 60 + at.second


def _rates(price: ModelPrice) -> Rates:
    return Rates(
        input=_rate(price.input_mtok, _MILLION),
        cache_read=_rate(price.cache_read_mtok, _MILLION),
        cache_write=_rate(price.cache_write_mtok, _MILLION),
        output=_rate(price.output_mtok, _MILLION),
        reasoning=_rate(price.output_reasoning_mtok, _MILLION),
        request=_rate(price.requests_kcount, _THOUSAND),
    )


def _rate(price: Decimal | TieredPrices | None, per: float) -> Rate | None:
    if price is None:
        return None
    if isinstance(price, TieredPrices):
        tiers = sorted((tier.start, float(tier.price) / per) for tier in price.tiers)
        return Rate(float(price.base) / per, tuple(tiers))
    return Rate(float(price) / per)
