"""Every query of every dashboard, run on a real Prometheus over what llmobs really publishes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest

from llmobs.analyzer.publish.grafana import load_assets
from llmobs.analyzer.publish.metrics import Metrics
from llmobs.analyzer.publish.rules import api_groups
from llmobs.records import EVENT_SCHEMA, EventBatch, MonitorStatus, Scores
from tests.analyzer.notify.findings import finding
from tests.analyzer.publish.batches import column, scores, spans
from tests.dashboards.prometheus import Prometheus, running, write_history
from tests.dashboards.queries import Query, of_panels, of_rules

S: Final = 10**9
END_S: Final = 1_764_072_000.0
STEP_S: Final = 60
N_STEPS: Final = 150  # two and a half hours: sessions end, and every window but days is full
BUILT_IN: Final = {
    "$__rate_interval": "5m",
    "$__range": "2h",
    "$service": ".*",
    "$feature": ".*",
    "$model": ".*",
}


def traffic(rng: np.random.Generator, step: int, now_s: float) -> list[dict[str, Any]]:
    """Return the spans of one minute: calls of two models, some failing, and their steps."""
    rows: list[dict[str, Any]] = []
    for i in range(12):
        failed = rng.random() < 0.1
        call = {
            "ts_ns": int(now_s * S) - 5 * S,
            "duration_ns": int(rng.lognormal(0, 1) * S),
            "ttft_ns": int(rng.lognormal(-1, 0.5) * S),
            "trace_id": rng.bytes(16),
            "request_model": ("gpt-5-mini", "claude-sonnet-5")[i % 2],
            "feature": ("answers", "search")[i % 3 == 0],
            "session_id": f"s{step // 10}-{i}",
            "error_type": "429" if failed else "",
        }
        if not failed:
            call |= {"input_tokens": 900, "output_tokens": 150, "cache_read_tokens": 300}
            call["cost_usd"] = None if i == 11 else 0.002
        rows.append(call)
    tool = {"operation": "execute_tool", "tool": "search", "ts_ns": int(now_s * S) - 4 * S}
    return [*rows, tool, {**tool, "error_type": "timeout"}]


def judged(rng: np.random.Generator, n: int) -> Scores:
    """Return scores of every scorer that ships."""
    out = []
    for name, target in (
        ("toxicity", "input"), ("toxicity", "output"), ("injection", "input"), ("pii", "input"),
        ("refusal", "output"), ("relevance", "pair"),
    ):  # fmt: skip
        values = rng.beta(1, 6, n)
        labels = ["fail" if value > 0.3 else "pass" for value in values]
        out.append(column(name, target, values.tolist(), labels))  # type: ignore[arg-type]
    out.append(column("language", "input", [1.0] * n, ["en", "de"] * (n // 2)))
    return scores(*out)


def thumbs() -> EventBatch:
    """Return one thumb up and one down."""
    row: dict[str, Any] = {
        "ts_ns": 0, "trace_id": bytes(16), "span_id": bytes(8), "service": "shop",
        "environment": "", "event_name": "gen_ai.evaluation.result", "severity": 9, "body": "",
    }  # fmt: skip
    told = [("llmobs.feedback.source", "user"), ("llmobs.feature", "answers")]
    rows = [
        {**row, "attributes_s": told, "attributes_n": [("gen_ai.evaluation.score.value", value)]}
        for value in (0.0, 1.0)
    ]
    return EventBatch(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA))


def status(kind: str) -> MonitorStatus:
    return MonitorStatus(
        f"{kind}.topic",
        kind,
        "shop",
        "prod",
        "answers",
        "watching",
        "",
        2.0,
        9.2,
        None,
        None,
        "",
        9,
        9,
        (),
    )


def history() -> Iterator[tuple[float, bytes]]:
    """Yield a page a minute of an analyzer at work."""
    rng, now_s = np.random.default_rng(7), END_S - N_STEPS * STEP_S
    metrics = Metrics(clock=lambda: int(now_s * S))
    for step in range(N_STEPS + 1):
        batch = spans(*traffic(rng, step, now_s))
        verdicts = judged(rng, len(batch))
        failed = {"pii": "timeout"} if step % 20 == 0 else {}
        metrics.record(batch, Scores(verdicts.columns, verdicts.embeddings, failed), thumbs())
        found = [
            finding(monitor=f"{kind}.topic", kind=kind)
            for kind in ("input", "output", "model")
            if step % 50 == 49
        ]
        metrics.record_monitors([status(kind) for kind in ("input", "output", "model")], found)
        metrics.record_ingest("traces", "accepted", len(batch))
        metrics.heartbeat("analysis")
        yield now_s, metrics.render()
        now_s += STEP_S


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    data = write_history(tmp_path_factory.mktemp("prometheus"), history())
    with running(data) as server:
        yield server


def expanded(query: Query) -> str:
    """Put values in the place of Grafana's variables."""
    return re.sub(r"\$\w+", lambda match: BUILT_IN[match[0]], query.expr)


@pytest.mark.parametrize("query", list(of_panels()), ids=lambda q: q.where)
def test_no_panel_is_empty(prometheus: Prometheus, query: Query) -> None:
    found = prometheus.query(expanded(query), END_S)
    assert found
    assert not all(math.isnan(float(series["value"][1])) for series in found)


@pytest.mark.parametrize("query", list(of_rules()), ids=lambda q: q.where)
def test_every_rule_can_be_evaluated(prometheus: Prometheus, query: Query) -> None:
    prometheus.query(query.expr, END_S)


def test_every_rule_that_is_pushed_to_grafana_can_be_evaluated(prometheus: Prometheus) -> None:
    groups = api_groups(load_assets().rules, folder="llmobs", datasource="prometheus")
    for group in groups:
        for rule in group["rules"]:
            prometheus.query(rule["data"][0]["model"]["expr"], END_S)


def test_prometheus_counts_what_the_analyzer_counted(prometheus: Prometheus) -> None:
    (calls,) = prometheus.query("sum(llmobs_calls_total)", END_S)
    assert float(calls["value"][1]) == 12 * (N_STEPS + 1)
    (rate,) = prometheus.query("sum(rate(llmobs_calls_total[1h])) * 60", END_S)
    assert float(rate["value"][1]) == pytest.approx(12, rel=0.05)
