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
    "lost": ("llmobs_lost_total", "reason"),
}
# Group -> key -> metric without labels; one that is not there is left out.
_PLAIN: Final[Mapping[str, Mapping[str, str]]] = {
    "log": {
        "n_segments": "llmobs_log_backlog_segments",
        "size_bytes": "llmobs_log_backlog_bytes",
        "limit_bytes": "llmobs_log_limit_bytes",
        "oldest_s": "llmobs_log_backlog_seconds",
        "n_refused": "llmobs_log_refused_total",
        "n_disk_errors": "llmobs_log_disk_errors_total",
        "queue_bytes": "llmobs_log_queue_bytes",
    },
    "engine": {
        "size_bytes": "llmobs_store_bytes",
        "parts": "llmobs_store_parts",
        "merges": "llmobs_store_merges",
        "mutations": "llmobs_store_mutations",
        "lag_records": "llmobs_log_lag_records",
        "aside_bytes": "llmobs_aside_bytes",
    },
}
# Key of each stage's backlog -> metric.
_BACKLOG: Final[Mapping[str, str]] = {
    "n_segments": "llmobs_backlog_segments",
    "oldest_s": "llmobs_backlog_seconds",
}
# Group -> metric; its values by service.
_BY_SERVICE: Final[Mapping[str, str]] = {
    "completeness": "llmobs_completeness_ratio",
    "missing": "llmobs_calls_missing_total",
}
_LAG: Final = "llmobs_scoring_lag_seconds"
_HEARTBEAT: Final = "llmobs_last_cycle_timestamp_seconds"

# The whole text has thousands of series about the traffic; only these lines are parsed.
_READ: Final = (
    *(name for name, _ in _COUNTERS.values()),
    *(name for names in _PLAIN.values() for name in names.values()),
    *_BACKLOG.values(),
    *_BY_SERVICE.values(),
    _LAG,
    _HEARTBEAT,
)


def health(text: bytes, now_s: float) -> dict[str, Any]:
    """Read the metrics that tell how the server is.

    Args:
        text: In Prometheus' text format, of the receiver and the engine.
        now_s: The server's time, in seconds since 1970.

    Returns:
        ``heartbeat_age_s`` by loop; ``log``: what the receiver says of it, empty where it said
        nothing; ``backlog``: by stage, n_segments that wait and how long the oldest has
        (oldest_s); ``engine``: the store's size, parts, merges and mutations as far as it
        answers, records in Kafka and bytes set aside; ``lag_s`` of the analysis, None before
        its first batch; by service, ``completeness`` (spans seen of those numbered, of the last
        day, where it is known) and ``missing`` (how many had not come in time); and
        counts since the start, those that are 0 left out: ``requests`` and ``items`` by outcome,
        ``repairs``, ``scorer_failures``, ``publish_failures``, ``folded_series``, ``lost`` by
        reason.
    """
    values = _values(text)
    counts = {
        group: _by_label(values[metric], label) for group, (metric, label) in _COUNTERS.items()
    }
    return {
        "heartbeat_age_s": {
            labels["stage"]: max(0.0, now_s - at_s) for labels, at_s in values[_HEARTBEAT]
        },
        **{
            group: {key: values[name][0][1] for key, name in names.items() if values[name]}
            for group, names in _PLAIN.items()
        },
        "backlog": _by_stage(values),
        **{
            group: {labels["service_name"]: value for labels, value in values[metric]}
            for group, metric in _BY_SERVICE.items()
        },
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


def _by_stage(values: Mapping[str, _Samples]) -> dict[str, dict[str, float]]:
    stages: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for key, metric in _BACKLOG.items():
        for labels, value in values.get(metric, ()):
            stages[labels["stage"]][key] = value
    return dict(stages)


def _by_label(samples: _Samples, label: str) -> dict[str, int]:
    sums: defaultdict[str, int] = defaultdict(int)
    for labels, value in samples:
        sums[labels[label]] += int(value)
    return {name: n for name, n in sums.items() if n}
