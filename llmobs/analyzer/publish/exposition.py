"""The metrics as a page that Prometheus reads, plain text or OpenMetrics with exemplars."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Final, Literal

from prometheus_client import Metric
from prometheus_client import exposition as text_format
from prometheus_client.openmetrics import exposition as openmetrics_format
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from llmobs.analyzer.publish.catalogue import MetricSpec
from llmobs.analyzer.publish.families import Series, Snapshot

__all__ = ["CONTENT_TYPES", "Format", "format_for", "render"]

Format = Literal["text", "openmetrics"]

CONTENT_TYPES: Final[dict[Format, str]] = {
    "text": text_format.CONTENT_TYPE_PLAIN_0_0_4,
    "openmetrics": openmetrics_format.CONTENT_TYPE_LATEST,
}


def format_for(accept: str) -> Format:
    """Choose the format for an HTTP Accept header."""
    return "openmetrics" if "application/openmetrics-text" in accept else "text"


def render(snapshot: Snapshot, form: Format = "text") -> bytes:
    """Write every series; `CONTENT_TYPES` has the header that goes with it.

    OpenMetrics adds what the old format can't say: exemplars (the trace behind a bucket) and
    when a series began, from which Prometheus knows that it stood at 0 before.
    """
    collector = _Collected(snapshot, rich=form == "openmetrics")
    if form == "openmetrics":
        return bytes(openmetrics_format.generate_latest(collector))  # type: ignore[no-untyped-call]
    return text_format.generate_latest(collector)


class _Collected(Collector):
    def __init__(self, snapshot: Snapshot, *, rich: bool) -> None:
        self._snapshot = snapshot
        self._rich = rich

    def collect(self) -> Iterator[Metric]:
        for spec, series in self._snapshot:
            stem = spec.name.removesuffix("_total") if spec.kind == "counter" else spec.name
            unit = "seconds" if spec.unit == "s" and stem.endswith("_seconds") else ""
            metric = Metric(stem, spec.meaning, spec.kind, unit)
            for one in series:
                self._add_samples(metric, spec, one)
            yield metric

    def _add_samples(self, metric: Metric, spec: MetricSpec, series: Series) -> None:
        labels = dict(zip(spec.prometheus_labels, series.labels, strict=True))
        if spec.kind == "histogram":
            bounds = [*map(floatToGoString, spec.bounds), "+Inf"]
            counts = list(accumulate(series.buckets))
            for i, (bound, count) in enumerate(zip(bounds, counts, strict=True)):
                metric.add_sample(
                    f"{metric.name}_bucket",
                    {**labels, "le": bound},
                    count,
                    exemplar=_exemplar(series, i) if self._rich else None,
                )
            metric.add_sample(f"{metric.name}_count", labels, counts[-1])
            metric.add_sample(f"{metric.name}_sum", labels, series.value)
        else:
            metric.add_sample(spec.name, labels, series.value)
        if self._rich and spec.kind != "gauge":
            metric.add_sample(f"{metric.name}_created", labels, series.created_s)


def _exemplar(series: Series, bucket: int) -> Exemplar | None:
    seen = series.exemplars.get(bucket)
    if seen is None:
        return None
    ids = {"trace_id": seen.trace_id, "span_id": seen.span_id}
    return Exemplar(ids, seen.value, seen.time_s)
