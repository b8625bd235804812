"""From calls and their tokens to USD, over arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

import numpy as np
import numpy.typing as npt

from llmobs.errors import ConfigurationError
from llmobs.measures.cost.catalog import Plan, Rate, Rates, find
from llmobs.records import FloatArray

__all__ = ["Bill", "Call", "Override", "PriceBook", "UnpricedModel", "Usage"]

# Model names come from outside: keep what is learnt about them bounded.
_MAX_MODELS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Call:
    """What a price hangs on, apart from time and tokens.

    Attributes:
        provider: As in ``gen_ai.provider.name``; "" where not sent.
        response_model: What answered; it is looked up first.
        request_model: What was asked for; looked up where the other is unknown.
        service_tier: As the provider answered, such as ``flex``; "" for the usual one.
    """

    provider: str
    response_model: str
    request_model: str
    service_tier: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of calls as the GenAI conventions count them, each of shape (n,).

    NaN means not known; for the cached and the reasoning tokens, which providers leave out
    where there are none, it counts as none.

    Attributes:
        input: All of the input, cached tokens included.
        output: All of the output, reasoning included.
        cache_read: Of the input, what was read from a cache.
        cache_write: Of the input, what was written to a cache.
        reasoning: Of the output.
    """

    input: FloatArray
    output: FloatArray
    cache_read: FloatArray
    cache_write: FloatArray
    reasoning: FloatArray


@dataclass(frozen=True, slots=True)
class Bill:
    """USD of each call by kind, each of shape (n,); NaN where the call is not priced.

    Attributes:
        input: Input that was not cached, or is charged as if it were not.
        cache_read: Input read from a cache.
        cache_write: Input written to a cache.
        output: Output, reasoning included.
        request: What is charged for the call as such.
    """

    input: FloatArray
    cache_read: FloatArray
    cache_write: FloatArray
    output: FloatArray
    request: FloatArray

    @property
    def total(self) -> FloatArray:
        """All kinds together."""
        total: FloatArray = (
            self.input + self.cache_read + self.cache_write + self.output + self.request
        )
        return total


@dataclass(frozen=True, slots=True)
class Override:
    """One's own prices in USD per million tokens, as negotiated or for a model at home.

    Attributes:
        cache_read: None: cached tokens cost what others do.
        cache_write: The same.
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cache_read", "cache_write"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigurationError(
                    f"price override {name}={value!r} is not an amount of USD per million tokens"
                )


@dataclass(frozen=True, slots=True)
class UnpricedModel:
    """A model that no price is known for, and how many calls went unpriced."""

    provider: str
    model: str
    n_calls: int


class PriceBook:
    """Prices calls from genai-prices' packaged list, or from one's own prices.

    One thread prices; others may ask for `unpriced` meanwhile.

    Args:
        overrides: Own prices (or their fields as a mapping) by pattern, matched against
            ``provider/model`` and against the model alone, without regard to case; ``*`` and
            ``?`` as in file names. The first that fits wins, before the list.

    Raises:
        ConfigurationError: An override lacks a price or has an unknown one.
    """

    def __init__(
        self, overrides: Mapping[str, Override | Mapping[str, float]] | None = None
    ) -> None:
        self._overrides = {
            pattern.lower(): Plan(fixed=_own_rates(_override(pattern, override)))
            for pattern, override in (overrides or {}).items()
        }
        self._plans: dict[Call, Plan | None] = {}
        self._unpriced: Counter[tuple[str, str]] = Counter()

    def price(
        self,
        calls: Sequence[Call],
        which: npt.NDArray[np.int64],
        ts_ns: npt.NDArray[np.int64],
        usage: Usage,
    ) -> FloatArray:
        """Return the total of `bill` in USD, shape (n,), NaN where not priced."""
        return self.bill(calls, which, ts_ns, usage).total

    def bill(
        self,
        calls: Sequence[Call],
        which: npt.NDArray[np.int64],
        ts_ns: npt.NDArray[np.int64],
        usage: Usage,
    ) -> Bill:
        """Price calls by kind of token.

        A call is not priced (NaN, never 0) where its model is unknown or sold otherwise than
        by the token, where the tokens that the model charges for are not known, and where
        they contradict each other (more cached tokens than input).

        Args:
            calls: The distinct kinds of calls, each named once.
            which: Index into `calls` of each row, shape (n,).
            ts_ns: When each call began, in ns since 1970, shape (n,): prices change.
            usage: Tokens of each row.
        """
        n = len(which)
        out = np.full((5, n), np.nan)
        order = np.argsort(which, kind="stable")
        ends = np.searchsorted(which, np.arange(len(calls)), side="right", sorter=order)
        tokens = np.stack(
            [usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning]
        )
        start = 0
        for call, end in zip(calls, ends, strict=True):
            rows, start = order[start:end], end
            if not len(rows):
                continue
            plan = self._plan(call)
            if plan is None:
                self._count_unpriced(call, len(rows))
                continue
            of_call, at_ns = tokens[:, rows], ts_ns[rows]
            for rates, part in plan.over(at_ns):
                if rates.known:
                    out[:, rows[part]] = _charge(rates, of_call[:, part])
                else:
                    self._count_unpriced(call, len(rows[part]))
        return Bill(*out)

    def unpriced(self) -> list[UnpricedModel]:
        """Return models that no price is known for, most calls first."""
        found = sorted(self._unpriced.copy().items(), key=lambda item: (-item[1], item[0]))
        return [UnpricedModel(provider, model, n) for (provider, model), n in found]

    def _plan(self, call: Call) -> Plan | None:
        if call not in self._plans:
            if len(self._plans) >= _MAX_MODELS:
                self._plans.clear()
            self._plans[call] = self._look_up(call)
        return self._plans[call]

    def _look_up(self, call: Call) -> Plan | None:
        names = [name for name in (call.response_model, call.request_model) if name]
        for name in names:
            full = f"{call.provider}/{name}".lower()
            for pattern, plan in self._overrides.items():
                if fnmatchcase(full, pattern) or fnmatchcase(name.lower(), pattern):
                    return plan
        for name in names:
            found = find(call.provider, name, call.service_tier)
            if found is not None:
                return found
        return None

    def _count_unpriced(self, call: Call, n_calls: int) -> None:
        key = (call.provider, call.response_model or call.request_model)
        if key in self._unpriced or len(self._unpriced) < _MAX_MODELS:
            self._unpriced[key] += n_calls


def _override(pattern: str, given: Override | Mapping[str, float]) -> Override:
    if isinstance(given, Override):
        return given
    try:
        return Override(**given)
    except TypeError as error:
        raise ConfigurationError(
            f"price override of {pattern!r} has {', '.join(sorted(given)) or 'nothing'}; it needs "
            "input and output, and may have cache_read and cache_write"
        ) from error


def _own_rates(override: Override) -> Rates:
    def rate(usd: float | None) -> Rate | None:
        return None if usd is None else Rate(usd / 1e6)

    return Rates(
        input=rate(override.input),
        output=rate(override.output),
        cache_read=rate(override.cache_read),
        cache_write=rate(override.cache_write),
    )


def _charge(rates: Rates, tokens: FloatArray) -> FloatArray:
    """Return USD by kind, shape (5, n), of calls at one model's rates."""
    all_input, all_output = tokens[0], tokens[1]
    cache_read, cache_write, reasoning = np.nan_to_num(tokens[2:], nan=0.0)
    plain_input, plain_output = all_input, all_output
    if rates.cache_read is not None:
        plain_input = plain_input - cache_read
    if rates.cache_write is not None:
        plain_input = plain_input - cache_write
    if rates.reasoning is not None:
        plain_output = plain_output - reasoning
    bill = np.stack(
        [
            _amount(rates.input, plain_input, all_input),
            _amount(rates.cache_read, cache_read, all_input),
            _amount(rates.cache_write, cache_write, all_input),
            _amount(rates.output, plain_output, all_input)
            + _amount(rates.reasoning, reasoning, all_input),
            _amount(rates.request, np.ones_like(all_input), all_input),
        ]
    )
    silent = np.isnan(all_input) & np.isnan(all_output)
    absurd = (plain_input < 0) | (plain_output < 0) | (tokens < 0).any(axis=0)
    # A price of 0 must not turn what is not known into a call without cost.
    bill[:, silent | absurd | np.isnan(bill).any(axis=0)] = np.nan
    return bill


def _amount(rate: Rate | None, count: FloatArray, all_input: FloatArray) -> FloatArray:
    if rate is None:
        return np.zeros_like(count)
    amount: FloatArray = rate.at(all_input) * count
    return amount
