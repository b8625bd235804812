"""What is sent through a Collector, and what an analyzer made of it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from llmobs.server import Server
from tests.deploy.collector import Collector
from tests.otlp import attribute, chat_span, post, traces_request
from tests.waiting import wait_until

__all__ = ["ids", "logs", "metrics", "send", "spans_of", "stored", "wait_stored"]

STORED = """
import json, sys
import clickhouse_connect
client = clickhouse_connect.get_client(interface="chdb", path=sys.argv[1])
def ask(sql):
    return client.query(sql).result_rows
print(json.dumps({
    "spans": [row[0] for row in ask("SELECT lower(hex(span_id)) FROM spans")],
    "rolled_up": int(ask("SELECT sum(n_spans) FROM minutes")[0][0]),
    "events": [row[0] for row in ask("SELECT event_name FROM events")],
    "metrics": [row[0] for row in ask("SELECT name FROM metric_points")],
    "names": [row[0] for row in ask("SELECT DISTINCT service FROM spans")],
}))
"""


def stored(data: Path) -> dict[str, Any]:
    """Return what a stopped analyzer has in its store; chDB wants a process of its own."""
    command = [sys.executable, "-c", STORED, str(data / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def spans_of(chance: random.Random, n_traces: int, *, n_spans: int = 3) -> list[Span]:
    """Make traces of some spans each, one session a trace, shuffled."""
    out = []
    for _ in range(n_traces):
        session = f"s-{chance.getrandbits(40):x}"
        root = chat_span(chance, session=session)
        out.append(root)
        for _ in range(n_spans - 1):
            span = chat_span(chance, session=session)
            span.trace_id, span.parent_span_id = root.trace_id, root.span_id
            out.append(span)
    chance.shuffle(out)
    return out


def send(collector: Collector, spans: list[Span], *, a_request: int = 50) -> None:
    """Send spans as exporters do; every request must be accepted at once."""
    for start in range(0, len(spans), a_request):
        status, answer = post(collector.http_port, traces_request(spans[start : start + a_request]))
        assert status == 200, answer


def ids(spans: list[Span]) -> list[str]:
    return sorted(span.span_id.hex() for span in spans)


def logs(n: int) -> bytes:
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.append(attribute("service.name", "tests"))
    records = resource.scope_logs.add().log_records
    for _ in range(n):
        records.add(event_name="test.event", time_unix_nano=time.time_ns())
    return request.SerializeToString()


def metrics(n: int) -> bytes:
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.append(attribute("service.name", "tests"))
    metric = resource.scope_metrics.add().metrics.add(name="test.metric")
    for value in range(n):
        metric.gauge.data_points.add(as_double=value, time_unix_nano=time.time_ns())
    return request.SerializeToString()


def wait_stored(server: Server, **wanted: int) -> None:
    """Return when an analyzer has stored so many items of each signal since its start."""
    for signal, n in wanted.items():
        wait_until(partial(_has_stored, server, signal, n))


def _has_stored(server: Server, signal: str, n: int) -> bool:
    with urllib.request.urlopen(f"{server.settings.page_url}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    wanted = {"signal": signal, "outcome": "accepted"}
    n_stored = sum(
        int(sample.value)
        for family in families
        for sample in family.samples
        if sample.name == "llmobs_ingest_items_total" and sample.labels == wanted
    )
    return n_stored >= n
