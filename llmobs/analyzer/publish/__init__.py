"""Publish: what the analyzer knows, as metrics and on a Grafana.

`catalogue.py` has every metric; `metrics.py` counts batches into `families.py`; the page that
Prometheus reads is `exposition.py`, the push is `otlp.py`; `grafana.py` brings dashboards,
alert rules (`rules.py`) and findings to a Grafana.
"""

from llmobs.analyzer.publish.catalogue import METRICS, MetricSpec
from llmobs.analyzer.publish.grafana import GrafanaPublisher, PublishError
from llmobs.analyzer.publish.metrics import Metrics
from llmobs.analyzer.publish.otlp import OtlpPublisher

__all__ = [
    "METRICS",
    "GrafanaPublisher",
    "MetricSpec",
    "Metrics",
    "OtlpPublisher",
    "PublishError",
]
