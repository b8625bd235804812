"""What the server's own metrics say about its health, for the page and `llmobs doctor`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["health"]

# Group -> (metric, the label that tells its parts apart). Sums go over all other labels.
_COUNTERS: Final[Mapping[str, tuple[str, str]]] = {
    "requests": ("llmobs_receive_requests_total", "outcome"),
    "items": ("llmobs_ingest_items_total", "outcome"),
    "repairs": ("llmobs_repairs_total", "repair"),
    "scorer_failures": ("llmobs_scorer_failures_total", "scorer"),
    "publish_failures": ("llmobs_publish_failures_total", "target"),
    "folded_series": ("llmobs_series_folded_total", "metric"),
}
_LOG: Final[Mapping[str, str]] = {
    "n_segments": "llmobs_log_backlog_segments",
    "size_bytes": "llmobs_log_backlog_bytes",
    "oldest_s": "llmobs_log_backlog_seconds",
    "n_refused": "llmobs_log_refused_total",
    "n_disk_errors": "llmobs_log_disk_errors_total",
}
_LAG: Final = "llmobs_scoring_lag_seconds"
_HEARTBEAT: Final = "llmobs_last_cycle_timestamp_seconds"

# The whole text has thousands of series about the traffic; only these lines are parsed.
_READ: Final = (*(name for name, _ in _COUNTERS.values()), *_LOG.values(), _LAG, _HEARTBEAT)


def health(text: bytes, now_s: float) -> dict[str, Any]:
    """Read the metrics that tell how the server is.

    Args:
        text: In Prometheus' text format, of the receiver and the engine.
        now_s: The server's time, in seconds since 1970.

    Returns:
        ``heartbeat_age_s`` by loop; ``log``: what the engine has still to read of it, empty
        where the receiver said nothing; ``lag_s`` of the analysis, None before its first batch;
        and counts since the start, those that are 0 left out: ``requests`` and ``items`` by
        outcome, ``repairs``, ``scorer_failures``, ``publish_failures``, ``folded_series``.
    """
    values = _values(text)
    counts = {
        group: _by_label(values[metric], label) for group, (metric, label) in _COUNTERS.items()
    }
    return {
        "heartbeat_age_s": {
            labels["stage"]: max(0.0, now_s - at_s) for labels, at_s in values[_HEARTBEAT]
        },
        "log": {key: values[name][0][1] for key, name in _LOG.items() if values[name]},
        "lag_s": values[_LAG][0][1] if values[_LAG] else None,
        **counts,
    }


_Samples = list[tuple[dict[str, str], float]]


def _values(text: bytes) -> defaultdict[str, _Samples]:
    lines = [line for line in text.decode().splitlines() if line.startswith(_READ)]
    values: defaultdict[str, _Samples] = defaultdict(list)
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            values[sample.name].append((sample.labels, sample.value))
    return values


def _by_label(samples: _Samples, label: str) -> dict[str, int]:
    sums: defaultdict[str, int] = defaultdict(int)
    for labels, value in samples:
        sums[labels[label]] += int(value)
    return {name: n for name, n in sums.items() if n}
