"""OTLP bytes to columns: check before the acknowledgement, decode after it."""

from llmobs.analyzer.decode.check import check
from llmobs.analyzer.decode.events import decode_events
from llmobs.analyzer.decode.metrics import decode_metrics
from llmobs.analyzer.decode.spans import decode_spans, decode_spans_upb, is_warm, warm

__all__ = [
    "check",
    "decode_events",
    "decode_metrics",
    "decode_spans",
    "decode_spans_upb",
    "is_warm",
    "warm",
]
