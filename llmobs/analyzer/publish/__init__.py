"""Publish: what the analyzer knows, as metrics and on a Grafana.

`catalogue.py` has every metric; `metrics.py` counts batches into `families.py`; the page that
Prometheus reads is `exposition.py`, the push is `otlp.py`; `evaluations.py` pushes scores;
`grafana.py` brings dashboards, alert rules (`rules.py`) and findings to a Grafana. The last three
are imported when they are asked for: their HTTP clients are a tenth of the server's start, and
most servers need none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from llmobs.analyzer.publish.catalogue import METRICS, MetricSpec
from llmobs.analyzer.publish.metrics import Metrics

if TYPE_CHECKING:
    from llmobs.analyzer.publish.evaluations import EvaluationPublisher
    from llmobs.analyzer.publish.grafana import GrafanaPublisher, PublishError
    from llmobs.analyzer.publish.otlp import OtlpPublisher

__all__ = [
    "METRICS",
    "EvaluationPublisher",
    "GrafanaPublisher",
    "MetricSpec",
    "Metrics",
    "OtlpPublisher",
    "PublishError",
]

_LATER: Final = {
    "EvaluationPublisher": "evaluations",
    "GrafanaPublisher": "grafana",
    "OtlpPublisher": "otlp",
    "PublishError": "grafana",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
