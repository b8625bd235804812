"""Which traces are kept, and the trace state that says how many calls a kept one stands for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from llmobs.sdk.guarded import report

__all__ = ["ConsistentRatio", "RecordAll", "sampler_from"]

_RANDOM_BITS: Final = 56  # of a trace id, as W3C Trace Context level 2 defines them
_DIGITS: Final = _RANDOM_BITS // 4
_MAX_ENTRIES: Final = 32  # of a trace state, by W3C Trace Context


class ConsistentRatio(Sampler):
    """Keep a share of the traces, and write the threshold into the trace state as ``ot=th:…``.

    A reader multiplies by the inverse of the probability; OpenTelemetry's own
    ``TraceIdRatioBased`` leaves it in the dark.

    References:
        OpenTelemetry specification, "TraceState: Probability Sampling".
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._threshold = round((1 - ratio) * 2**_RANDOM_BITS)
        digits = f"{self._threshold:0{_DIGITS}x}".rstrip("0") or "0"
        self._state = TraceState([("ot", f"th:{digits}")])

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Keep the trace where the random bits of its id reach the threshold."""
        if trace_id & (2**_RANDOM_BITS - 1) < self._threshold:
            return SamplingResult(Decision.DROP)
        state = self._state
        if trace_state:  # other vendors' entries go on
            others = [entry for entry in trace_state.items() if entry[0] != "ot"]
            state = TraceState([*state.items(), *others[: _MAX_ENTRIES - 1]])
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)

    def get_description(self) -> str:
        """Return what the sampler does, for people."""
        return f"ConsistentRatio{{{self._ratio}}}"


class RecordAll(Sampler):
    """Sample as another sampler says, but record all, so that metrics count what is not kept."""

    def __init__(self, inner: Sampler) -> None:
        self.inner = inner

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Turn a refusal into "record only", with the attributes that the span began with."""
        result = self.inner.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )
        if result.decision is not Decision.DROP:
            return result
        return SamplingResult(Decision.RECORD_ONLY, attributes, result.trace_state)

    def get_description(self) -> str:
        """Return what the sampler does, for people."""
        return f"RecordAll{{{self.inner.get_description()}}}"


def sampler_from(ratio: float | None) -> Sampler:
    """Return the sampler that the application or its environment asks for.

    Args:
        ratio: Share of the traces to keep, in [0, 1]; None: ``OTEL_TRACES_SAMPLER`` and
            ``OTEL_TRACES_SAMPLER_ARG`` decide, and all are kept where they are unset.
    """
    if ratio is not None:
        return DEFAULT_ON if ratio >= 1 else ParentBased(ConsistentRatio(ratio))
    name = os.environ.get(OTEL_TRACES_SAMPLER, "").strip().lower() or "parentbased_always_on"
    fixed = {
        "always_on": ALWAYS_ON,
        "always_off": ALWAYS_OFF,
        "parentbased_always_on": DEFAULT_ON,
        "parentbased_always_off": DEFAULT_OFF,
    }
    if name in fixed:
        return fixed[name]
    if name not in {"traceidratio", "parentbased_traceidratio"}:
        report("sampler unknown, all is kept", sampler=name)
        return DEFAULT_ON
    try:
        share = min(1.0, max(0.0, float(os.environ.get(OTEL_TRACES_SAMPLER_ARG, "1"))))
    except ValueError:
        report("sampler argument unreadable, all is kept", sampler=name)
        share = 1.0
    root = ConsistentRatio(share)
    return root if name == "traceidratio" else ParentBased(root)
