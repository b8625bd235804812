"""A finding as the monitors make it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmobs.records import Finding

MINUTE = 60 * 10**9
NOON = 1_764_072_000 * 10**9  # 2025-11-25 12:00 UTC

_FINDING = Finding(
    id="f1",
    monitor="input.topic",
    kind="input",
    level="page",
    service="shop",
    environment="prod",
    feature="answers",
    at_ns=NOON,
    onset_ns=NOON - 27 * MINUTE,
    summary="Questions about refunds went from 2 % to 31 %.",
    log_e=10.0,
    log_threshold=9.2103,
    reference=0.02,
    current=0.31,
    unit="",
    evidence={"movers": [{"name": "refunds", "before": 0.02, "after": 0.31}]},
    examples=("aa" * 16, "bb" * 16, "cc" * 16, "dd" * 16),
    provisional=False,
)


def finding(**fields: Any) -> Finding:
    """Return a finding; what is not said is as in a drift of topics."""
    return replace(_FINDING, **fields)
