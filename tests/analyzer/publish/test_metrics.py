from __future__ import annotations

import re
import time
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from llmobs.analyzer.publish.catalogue import METRICS, metric
from llmobs.analyzer.publish.exposition import CONTENT_TYPES, format_for
from llmobs.analyzer.publish.metrics import Metrics
from llmobs.records import EVENT_SCHEMA, STATUS_ERROR, EventBatch, Finding, MonitorStatus, Seen
from tests.analyzer.publish.batches import NO_SCORES, column, scores, spans

NAN = float("nan")


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Sum the published samples of that name that carry those labels."""
    found = [
        sample.value
        for family in parse_text(metrics.render().decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else NAN


class Clock:
    def __init__(self) -> None:
        self.ns = 1_700_000_000 * 10**9

    def __call__(self) -> int:
        return self.ns


def test_a_call_counts_as_often_as_its_sampling_weight_says() -> None:
    metrics = Metrics()
    metrics.record(spans({"weight": 1.0}, {"weight": 4.0}, {"weight": 2.5}), NO_SCORES)
    assert value(metrics, "llmobs_calls_total", service_name="shop") == 7.5
    assert value(metrics, "llmobs_call_duration_seconds_count") == 7.5
    assert value(metrics, "llmobs_call_duration_seconds_sum") == pytest.approx(7.5 * 0.3)


def test_a_failed_span_without_a_type_is_an_error_of_type_other() -> None:
    metrics = Metrics()
    batch = spans({}, {"status": STATUS_ERROR}, {"status": STATUS_ERROR, "error_type": "429"})
    metrics.record(batch, NO_SCORES)
    assert value(metrics, "llmobs_calls_total", error_type="") == 1
    assert value(metrics, "llmobs_calls_total", error_type="_OTHER") == 1
    assert value(metrics, "llmobs_calls_total", error_type="429") == 1


def test_tools_and_agents_are_steps_and_no_calls() -> None:
    metrics = Metrics()
    batch = spans(
        {
            "operation": "execute_tool",
            "tool": "search",
            "agent": "planner",
            "error_type": "timeout",
        },
        {"operation": "invoke_agent", "agent": "planner"},
        {"operation": "embeddings", "request_model": "small"},
        {"operation": ""},
    )
    metrics.record(batch, NO_SCORES)
    assert np.isnan(value(metrics, "llmobs_calls_total"))
    count = "llmobs_operation_duration_seconds_count"
    assert value(metrics, count) == 3
    assert value(metrics, count, gen_ai_operation_target="search", error_type="timeout") == 1
    assert value(metrics, count, gen_ai_operation_target="planner") == 1
    assert value(metrics, count, gen_ai_operation_target="small") == 1


def test_a_value_on_a_bound_is_in_that_bucket() -> None:
    metrics = Metrics()
    metrics.record(spans({"duration_ns": 320_000_000}, {"duration_ns": 10**12}), NO_SCORES)
    bucket = "llmobs_call_duration_seconds_bucket"
    assert value(metrics, bucket, le="0.16") == 0
    assert value(metrics, bucket, le="0.32") == 1
    assert value(metrics, bucket, le="81.92") == 1
    assert value(metrics, bucket, le="+Inf") == 2


def test_cost_and_tokens_are_those_of_calls_and_embeddings_not_of_the_agent_above() -> None:
    metrics = Metrics()
    usage = {"input_tokens": 100, "output_tokens": 10, "cache_read_tokens": 60, "cost_usd": 0.5}
    batch = spans(
        usage,
        {**usage, "operation": "invoke_agent"},  # an agent's span repeats what its calls used
        {"operation": "embeddings", "input_tokens": 7, "cost_usd": 0.25},
    )
    metrics.record(batch, NO_SCORES)
    assert value(metrics, "llmobs_cost_usd_total") == 0.75
    assert value(metrics, "llmobs_tokens_total", token_type="input") == 107
    assert value(metrics, "llmobs_tokens_total", token_type="output") == 10
    assert value(metrics, "llmobs_tokens_total", token_type="cache_read") == 60
    assert value(metrics, "llmobs_tokens_total", token_type="reasoning") == 0


def test_a_call_without_a_price_is_counted_and_costs_nothing_known() -> None:
    metrics = Metrics()
    batch = spans({"cost_usd": 0.1}, {"cost_usd": None}, {"cost_usd": None, "error_type": "429"})
    metrics.record(batch, NO_SCORES)
    assert value(metrics, "llmobs_cost_unpriced_calls_total") == 1
    assert value(metrics, "llmobs_cost_usd_total") == 0.1


def test_time_to_first_chunk_is_known_for_streamed_calls_only() -> None:
    metrics = Metrics()
    metrics.record(spans({"ttft_ns": 200_000_000}, {"ttft_ns": None}), NO_SCORES)
    assert value(metrics, "llmobs_call_ttft_seconds_count") == 1


def test_a_verdict_that_was_never_given_stands_at_zero() -> None:
    metrics = Metrics()
    judged = scores(
        column("toxicity", "output", [0.1, NAN], ["pass", ""]),
        column("injection", "input", [0.2, 0.1], ["pass", "pass"]),
    )
    metrics.record(spans({}, {}), judged)
    results = "llmobs_evaluation_results_total"
    label = "gen_ai_evaluation_score_label"
    of = {"gen_ai_evaluation_name": "toxicity", "gen_ai_evaluation_target": "output"}
    assert value(metrics, results, **of, **{label: "pass"}) == 1
    assert value(metrics, results, **of, **{label: "fail"}) == 0
    assert value(metrics, "llmobs_input_flags_total", flag="injection") == 0
    assert value(metrics, "llmobs_feedback_total", rating="down") == 0


def test_flags_count_failed_checks_of_inputs_and_languages_are_no_checks() -> None:
    metrics = Metrics()
    judged = scores(
        column("toxicity", "input", [0.9, 0.1, 0.8], ["fail", "pass", "fail"]),
        column("toxicity", "output", [0.9, 0.9, 0.9], ["fail", "fail", "fail"]),
        column("language", "input", [0.9, 0.8, NAN], ["en", "de", ""]),
    )
    metrics.record(spans({"weight": 2.0}, {}, {}), judged)
    assert value(metrics, "llmobs_input_flags_total", flag="toxicity") == 3
    assert value(metrics, "llmobs_input_language_total", language="en") == 2
    assert value(metrics, "llmobs_input_language_total", language="de") == 1
    names = {"gen_ai_evaluation_name": "language"}
    assert np.isnan(value(metrics, "llmobs_evaluation_results_total", **names))
    assert value(metrics, "llmobs_evaluation_score_count", gen_ai_evaluation_target="input") == 4


def test_a_scorer_that_failed_is_counted() -> None:
    metrics = Metrics()
    metrics.record(spans({}), type(NO_SCORES)((), {}, {"pii": "timeout"}))
    assert value(metrics, "llmobs_scorer_failures_total", scorer="pii") == 1


def test_events_bring_thumbs_and_verdicts_of_others() -> None:
    name, feedback = "gen_ai.evaluation.result", {"llmobs.feedback.source": "user"}
    rows = [
        (name, {**feedback, "llmobs.feature": "answers"}, {"gen_ai.evaluation.score.value": 0.0}),
        (name, {**feedback, "gen_ai.evaluation.score.label": "pass"}, {}),
        (
            name,
            {"gen_ai.evaluation.name": "grounded", "gen_ai.evaluation.score.label": "fail"},
            {"gen_ai.evaluation.score.value": 0.25},
        ),
        (name, {**feedback, "gen_ai.evaluation.explanation": "hm"}, {}),  # a comment alone
        ("app.started", feedback, {}),
    ]
    table = pa.table(
        {
            "ts_ns": [1] * 5,
            "trace_id": [bytes(16)] * 5,
            "span_id": [bytes(8)] * 5,
            "service": ["shop"] * 5,
            "environment": [""] * 5,
            "event_name": [row[0] for row in rows],
            "severity": [9] * 5,
            "body": [""] * 5,
            "attributes_s": [list(row[1].items()) for row in rows],
            "attributes_n": [list(row[2].items()) for row in rows],
        },
        schema=EVENT_SCHEMA,
    )
    metrics = Metrics()
    metrics.record(spans(), NO_SCORES, EventBatch(table))
    assert value(metrics, "llmobs_feedback_total", rating="down", llmobs_feature="answers") == 1
    assert value(metrics, "llmobs_feedback_total", rating="up") == 1
    assert value(metrics, "llmobs_evaluation_results_total", gen_ai_evaluation_name="grounded") == 1
    assert value(metrics, "llmobs_evaluation_score_bucket", le="0.3") == 1


def test_too_many_label_sets_fold_and_keep_the_totals_and_the_error_ratio() -> None:
    metrics = Metrics(max_series=3)
    rows = [{"request_model": f"m{i}", "error_type": "429" if i % 2 else ""} for i in range(50)]
    metrics.record(spans(*rows), NO_SCORES)
    calls = "llmobs_calls_total"
    assert value(metrics, calls) == 50
    assert value(metrics, calls, error_type="") == 25
    folded = {"gen_ai_request_model": "(other)", "service_name": "(other)"}
    assert value(metrics, calls, **folded, error_type="(other)") > 20
    assert value(metrics, "llmobs_series_folded_total", metric=calls) == 47
    assert (
        sum(line.startswith(b"llmobs_calls_total{") for line in metrics.render().splitlines()) <= 5
    )


def test_verdicts_that_others_send_can_not_make_series_without_end() -> None:
    metrics = Metrics(max_series=10)
    n = 200
    blank = {"ts_ns": 1, "trace_id": bytes(16), "span_id": bytes(8), "service": "shop"}
    blank |= {"environment": "", "severity": 9, "body": "", "attributes_n": []}
    rows = [
        {
            **blank,
            "event_name": "gen_ai.evaluation.result",
            "attributes_s": [
                ("gen_ai.evaluation.name", "judge"),
                ("gen_ai.evaluation.score.label", f"verdict {i}"),
            ],
        }
        for i in range(n)
    ]
    metrics.record(spans(), NO_SCORES, EventBatch(pa.Table.from_pylist(rows, EVENT_SCHEMA)))
    results = "llmobs_evaluation_results_total"
    assert value(metrics, results) == n
    page = metrics.render().decode().splitlines()
    assert sum(line.startswith(f"{results}{{") for line in page) < 50


def test_a_text_in_a_label_is_not_published() -> None:
    metrics = Metrics()
    metrics.record(spans({"error_type": "Error: user asked " + "x" * 200}), NO_SCORES)
    assert b"user asked" not in metrics.render()
    assert value(metrics, "llmobs_calls_total", error_type="(other)") == 1


def test_sessions_are_active_until_they_are_quiet_and_then_observed_once() -> None:
    clock = Clock()
    metrics = Metrics(clock=clock)
    rows = [{"session_id": f"s{i}", "cost_usd": float(i)} for i in range(20)]
    metrics.record(spans(*rows, rows[3], {"session_id": ""}), NO_SCORES)
    assert value(metrics, "llmobs_sessions_active", llmobs_feature="answers") == 20
    dear = {
        s.labels["gen_ai_conversation_id"]: s.value
        for f in parse_text(metrics.render().decode())
        for s in f.samples
        if s.name == "llmobs_session_cost_top_usd"
    }
    assert len(dear) == 10
    assert dear["s19"] == 19.0
    clock.ns += 1_799 * 10**9
    metrics.record(spans(rows[0]), NO_SCORES)
    clock.ns += 2 * 10**9
    assert value(metrics, "llmobs_sessions_active") == 1
    assert value(metrics, "llmobs_session_cost_usd_count") == 19
    assert value(metrics, "llmobs_session_cost_usd_sum") == sum(range(20)) + 3
    assert value(metrics, "llmobs_session_calls_bucket", le="1.0") == 18
    clock.ns += 2_000 * 10**9
    assert value(metrics, "llmobs_sessions_active") == 0
    assert value(metrics, "llmobs_session_cost_usd_count") == 20


def status(state: Literal["learning", "watching", "alarm"], log_e: float) -> MonitorStatus:
    return MonitorStatus(
        "input.topic",
        "input",
        "shop",
        "prod",
        "answers",
        state,
        "",
        log_e,
        9.2,
        None,
        None,
        "",
        0,
        0,
        (),
    )


def finding() -> Finding:
    return Finding(
        "f1", "input.topic", "input", "page", "shop", "", "answers", 1, 1, "", 10.0, 9.2, None,
        None, "", {}, (), False,
    )  # fmt: skip


def test_monitors_show_evidence_threshold_and_alarm() -> None:
    metrics = Metrics()
    metrics.record_monitors([status("alarm", 10.0)], [finding()])
    place = {"monitor": "input.topic", "kind": "input", "service_name": "shop"}
    assert value(metrics, "llmobs_drift_log_evalue", **place) == 10.0
    assert value(metrics, "llmobs_drift_log_threshold", **place) == 9.2
    assert value(metrics, "llmobs_drift_alarm", **place) == 1
    assert value(metrics, "llmobs_findings_total", **place, level="page") == 1
    assert value(metrics, "llmobs_findings_total", **place, level="watch") == 0
    metrics.record_monitors([status("learning", float("-inf"))], [])
    assert value(metrics, "llmobs_drift_alarm", **place) == 0
    assert np.isnan(value(metrics, "llmobs_drift_log_evalue", **place))


def test_completeness_is_shown_where_it_is_known() -> None:
    metrics = Metrics()
    metrics.record_completeness({"shop": Seen(0.75, 2), "desk": Seen(float("nan"), 5)})
    assert value(metrics, "llmobs_completeness_ratio", service_name="shop") == 0.75
    assert np.isnan(value(metrics, "llmobs_completeness_ratio", service_name="desk"))
    assert value(metrics, "llmobs_calls_missing_total", service_name="desk") == 5
    metrics.record_completeness({"shop": Seen(1.0, 2)})
    assert value(metrics, "llmobs_completeness_ratio", service_name="shop") == 1.0
    assert value(metrics, "llmobs_calls_missing_total", service_name="shop") == 2


def test_of_two_environments_the_one_in_alarm_is_shown() -> None:
    for order in (1, -1):
        metrics = Metrics()
        metrics.record_monitors([status("alarm", 10.0), status("watching", 1.0)][::order], [])
        assert value(metrics, "llmobs_drift_alarm") == 1
        assert value(metrics, "llmobs_drift_log_evalue") == 10.0


def test_the_pipeline_shows_its_heartbeat_lag_and_losses() -> None:
    clock = Clock()
    metrics = Metrics(clock=clock)
    ingest = "llmobs_ingest_items_total"
    assert value(metrics, ingest, signal="traces", outcome="rejected") == 0
    assert value(metrics, "llmobs_publish_failures_total", target="grafana") == 0
    metrics.record_ingest("traces", "rejected", 5)
    metrics.record_publish_failure("grafana")
    metrics.heartbeat("analysis")
    metrics.record(spans({"ts_ns": clock.ns - 2 * 10**9, "duration_ns": 5 * 10**8}), NO_SCORES)
    assert value(metrics, ingest, outcome="rejected") == 5
    assert value(metrics, "llmobs_publish_failures_total", target="grafana") == 1
    assert value(metrics, "llmobs_last_cycle_timestamp_seconds", stage="analysis") == 1.7e9
    assert value(metrics, "llmobs_scoring_lag_seconds") == 1.5


def test_openmetrics_carries_the_trace_behind_a_bucket_and_when_a_series_began() -> None:
    metrics = Metrics(clock=Clock())
    metrics.record(spans({"trace_id": b"\xaa" * 16}, {"trace_id": b"\xbb" * 16}), NO_SCORES)
    page = metrics.render("openmetrics").decode()
    families = {family.name: family for family in parse_openmetrics(page)}  # type: ignore[no-untyped-call]
    duration = families["llmobs_call_duration_seconds"]
    exemplars = [s.exemplar for s in duration.samples if s.exemplar]
    assert [e.labels for e in exemplars] == [{"trace_id": "bb" * 16, "span_id": "02" * 8}]
    assert exemplars[0].value == 0.3
    created = [s.value for s in duration.samples if s.name.endswith("_created")]
    assert created == [1.7e9]
    assert "_created" not in metrics.render().decode()


def test_the_format_follows_what_the_reader_accepts() -> None:
    assert (
        format_for("application/openmetrics-text;version=1.0.0,text/plain;q=0.5") == "openmetrics"
    )
    assert format_for("*/*") == "text"
    assert CONTENT_TYPES["text"].startswith("text/plain")


def test_every_published_series_is_in_the_catalogue_with_its_labels() -> None:
    metrics = Metrics()
    usage = {"input_tokens": 5, "cost_usd": 1.0, "ttft_ns": 1, "session_id": "s"}
    judged = scores(column("toxicity", "input", [0.1, 0.2], ["pass", "fail"]))
    metrics.record(spans(usage, {"operation": "execute_tool"}), judged)
    metrics.record_monitors([status("alarm", 1.0)], [finding()])
    for family in parse_text(metrics.render().decode()):
        for sample in family.samples:
            spec = metric(sample.name)
            assert spec is not None, sample.name
            assert set(sample.labels) - {"le"} == set(spec.prometheus_labels)


def test_every_metric_has_a_name_that_says_its_kind_and_unit() -> None:
    assert len({spec.name for spec in METRICS}) == len(METRICS)
    for spec in METRICS:
        assert re.fullmatch(r"llmobs_[a-z_]+", spec.name)
        assert (spec.kind == "counter") == spec.name.endswith("_total"), spec.name
        assert (spec.kind == "histogram") == bool(spec.bounds), spec.name
        assert spec.meaning.endswith(".")
        if spec.unit == "s":
            assert "_seconds" in spec.name
        if spec.unit == "{USD}":
            assert "_usd" in spec.name


def test_a_batch_costs_far_less_than_a_python_step_per_span() -> None:
    n = 20_000
    rows = [{"request_model": f"m{i % 5}", "feature": f"f{i % 7}"} for i in range(n)]
    batch = spans(*rows)
    judged = scores(column("toxicity", "output", [0.1] * n, ["pass"] * n))
    metrics = Metrics()
    metrics.record(batch, judged)
    start = time.process_time()
    metrics.record(batch, judged)
    # About 2 us a span; a loop over spans that touched ten series would take 20.
    assert (time.process_time() - start) / n < 10e-6


def test_a_part_that_is_watched_is_asked_whenever_the_metrics_are_wanted() -> None:
    metrics = Metrics()
    said: dict[str, dict[tuple[str, ...], float]] = {}
    metrics.watch(lambda: said)
    said["llmobs_backlog_segments"] = {("ingest",): 3.0, ("analysis",): 1.0}
    said["llmobs_lost_total"] = {("corrupt",): 0.0}
    assert value(metrics, "llmobs_backlog_segments", stage="ingest") == 3
    assert value(metrics, "llmobs_lost_total", reason="corrupt") == 0
    said["llmobs_backlog_segments"] = {("analysis",): 0.0}
    assert np.isnan(value(metrics, "llmobs_backlog_segments", stage="ingest"))


def test_a_watched_counter_adds_up_what_is_new_and_never_falls() -> None:
    metrics = Metrics()
    totals = iter([2.0, 5.0, 1.0, 3.0])  # restarted after 5
    metrics.watch(lambda: {"llmobs_lost_total": {("expired",): next(totals)}})
    seen = [value(metrics, "llmobs_lost_total", reason="expired") for _ in range(4)]
    assert seen == [2, 5, 5, 7]
