"""Every metric of llmobs in one table: name, kind, unit, labels, meaning.

Documentation, dashboards and tests read this table; a dashboard or an alert may name no
metric that is not here. Label names are OpenTelemetry attribute names; Prometheus sees
them with dots turned into underscores (`MetricSpec.prometheus_labels`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from llmobs import semconv

__all__ = ["CLOSED_LABELS", "METRICS", "MetricSpec", "metric"]

FEATURE: Final = (semconv.SERVICE_NAME, semconv.LLMOBS_FEATURE)
CALL: Final = (
    *FEATURE,
    semconv.GEN_AI_OPERATION_NAME,
    semconv.GEN_AI_PROVIDER_NAME,
    semconv.GEN_AI_REQUEST_MODEL,
)
MODEL: Final = (*FEATURE, semconv.GEN_AI_REQUEST_MODEL)
MONITOR: Final = ("monitor", "kind", *FEATURE)

# Shares of one: scores of `gen_ai.evaluation.*` lie in [0, 1].
BUCKETS_SCORE: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Powers of about three from a tenth of a cent to 30 USD: a short chat to a runaway agent.
BUCKETS_SESSION_USD: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
BUCKETS_SESSION_CALLS: Final = (1, 2, 4, 8, 16, 32, 64, 128)

CLOSED_LABELS: Final = frozenset(
    {
        "flag",
        "kind",
        "level",
        "metric",
        "outcome",
        "rating",
        "reason",
        "repair",
        "severity",
        "signal",
        "stage",
        "token_type",
        semconv.GEN_AI_EVALUATION_SCORE_LABEL,
        "gen_ai.evaluation.target",
    }
)
"""Labels whose values come from our own code; all others are folded when there are too many."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """What one metric is.

    Attributes:
        unit: UCUM unit, "" for a ratio or a plain number. Prometheus' OTLP translation
            turns a gauge of unit "1" into another name, so "1" is never used.
        labels: OpenTelemetry attribute names.
        bounds: Upper bounds of a histogram's buckets, without infinity.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    labels: tuple[str, ...]
    meaning: str
    bounds: tuple[float, ...] = ()

    @property
    def prometheus_labels(self) -> tuple[str, ...]:
        """The label names as Prometheus sees them."""
        return tuple(label.replace(".", "_") for label in self.labels)


CALLS: Final = MetricSpec(
    "llmobs_calls_total",
    "counter",
    "{call}",
    (*CALL, semconv.ERROR_TYPE),
    "Calls that asked a model for an answer; error_type is empty for those that succeeded.",
)
CALL_DURATION: Final = MetricSpec(
    "llmobs_call_duration_seconds",
    "histogram",
    "s",
    (*CALL, semconv.ERROR_TYPE),
    "Time from the request to the last byte of the answer.",
    semconv.BUCKETS_DURATION_S,
)
CALL_TTFT: Final = MetricSpec(
    "llmobs_call_ttft_seconds",
    "histogram",
    "s",
    CALL,
    "Time from the request to the first chunk of a streamed answer.",
    semconv.BUCKETS_DURATION_S,
)
OPERATION_DURATION: Final = MetricSpec(
    "llmobs_operation_duration_seconds",
    "histogram",
    "s",
    (*FEATURE, semconv.GEN_AI_OPERATION_NAME, "gen_ai.operation.target", semconv.ERROR_TYPE),
    "Time of the steps around the calls: tools, agents, workflows, retrieval, embeddings. "
    "gen_ai_operation_target is the tool's, agent's or workflow's name, or the model.",
    semconv.BUCKETS_AGENT_S,
)
TOKENS: Final = MetricSpec(
    "llmobs_tokens_total",
    "counter",
    "{token}",
    (*CALL, "token_type"),
    "Tokens billed. token_type is input (cached ones included), output (reasoning included), "
    "cache_read, cache_write or reasoning.",
)
CALL_TOKENS: Final = MetricSpec(
    "llmobs_call_tokens",
    "histogram",
    "{token}",
    (*MODEL, "token_type"),
    "Tokens of one call; token_type is input or output.",
    semconv.BUCKETS_TOKENS,
)
COST: Final = MetricSpec(
    "llmobs_cost_usd_total",
    "counter",
    "{USD}",
    CALL,
    "What priced calls and embeddings cost, in US dollars.",
)
UNPRICED: Final = MetricSpec(
    "llmobs_cost_unpriced_calls_total",
    "counter",
    "{call}",
    CALL,
    "Calls and embeddings that succeeded but have no price: unknown model or no usage sent. "
    "Their cost is missing in llmobs_cost_usd_total.",
)
EVALUATIONS: Final = MetricSpec(
    "llmobs_evaluation_results_total",
    "counter",
    "{result}",
    (
        *MODEL,
        semconv.GEN_AI_EVALUATION_NAME,
        "gen_ai.evaluation.target",
        semconv.GEN_AI_EVALUATION_SCORE_LABEL,
    ),
    "Verdicts on calls, by our scorers and by evaluators that send gen_ai.evaluation.result. "
    "The target is what was judged: input, output or pair.",
)
EVALUATION_SCORE: Final = MetricSpec(
    "llmobs_evaluation_score",
    "histogram",
    "",
    (*FEATURE, semconv.GEN_AI_EVALUATION_NAME, "gen_ai.evaluation.target"),
    "Scores behind those verdicts.",
    BUCKETS_SCORE,
)
INPUT_FLAGS: Final = MetricSpec(
    "llmobs_input_flags_total",
    "counter",
    "{call}",
    (*FEATURE, "flag"),
    "Inputs that failed a check: injection, pii, toxicity and what other scorers judge inputs.",
)
INPUT_LANGUAGE: Final = MetricSpec(
    "llmobs_input_language_total",
    "counter",
    "{call}",
    (*FEATURE, "language"),
    "Inputs by language (ISO 639-1).",
)
FEEDBACK: Final = MetricSpec(
    "llmobs_feedback_total",
    "counter",
    "{event}",
    (*FEATURE, "rating"),
    "Users' thumbs; rating is up or down.",
)
COMPLETENESS: Final = MetricSpec(
    "llmobs_completeness_ratio",
    "gauge",
    "",
    (semconv.SERVICE_NAME,),
    "Spans that came in, of those that the service's processes have numbered, of the last day. "
    "Absent where a producer sends no numbers.",
)
MISSING: Final = MetricSpec(
    "llmobs_calls_missing_total",
    "counter",
    "{span}",
    (semconv.SERVICE_NAME,),
    "Spans of calls and the steps around them that were numbered and had not come in time. One "
    "that comes later still mends the ratio, not this.",
)
SCORER_FAILURES: Final = MetricSpec(
    "llmobs_scorer_failures_total",
    "counter",
    "{batch}",
    ("scorer",),
    "Batches that a scorer could not judge; its column is missing for them.",
)
DRIFT_LOG_EVALUE: Final = MetricSpec(
    "llmobs_drift_log_evalue",
    "gauge",
    "",
    MONITOR,
    "Natural log of a monitor's evidence that something changed.",
)
DRIFT_LOG_THRESHOLD: Final = MetricSpec(
    "llmobs_drift_log_threshold",
    "gauge",
    "",
    MONITOR,
    "Where that evidence raises the alarm.",
)
DRIFT_ALARM: Final = MetricSpec(
    "llmobs_drift_alarm", "gauge", "", MONITOR, "1 while a monitor is in alarm, else 0."
)
FINDINGS: Final = MetricSpec(
    "llmobs_findings_total",
    "counter",
    "{finding}",
    (*MONITOR, "level"),
    "Findings of the monitors; level page is announced, watch is only shown.",
)
ALERTS_FIRING: Final = MetricSpec(
    "llmobs_alerts_firing",
    "gauge",
    "{alert}",
    ("severity",),
    "Alerts that are firing; severity is page or ticket.",
)
SESSIONS_ACTIVE: Final = MetricSpec(
    "llmobs_sessions_active",
    "gauge",
    "{session}",
    FEATURE,
    "Sessions that sent a span in the last 30 minutes.",
)
SESSION_COST: Final = MetricSpec(
    "llmobs_session_cost_usd",
    "histogram",
    "{USD}",
    FEATURE,
    "Cost of a session, observed when it has been quiet for 30 minutes.",
    BUCKETS_SESSION_USD,
)
SESSION_CALLS: Final = MetricSpec(
    "llmobs_session_calls",
    "histogram",
    "{call}",
    FEATURE,
    "Calls of a session, observed when it has been quiet for 30 minutes.",
    BUCKETS_SESSION_CALLS,
)
SESSION_COST_TOP: Final = MetricSpec(
    "llmobs_session_cost_top_usd",
    "gauge",
    "{USD}",
    (semconv.SERVICE_NAME, semconv.GEN_AI_CONVERSATION_ID),
    "The ten dearest active sessions; the only metric that names sessions.",
)
INGEST_ITEMS: Final = MetricSpec(
    "llmobs_ingest_items_total",
    "counter",
    "{item}",
    ("signal", "outcome"),
    "Items taken from the log: accepted ones are in the store, duplicates were there already or "
    "belong to someone who was deleted, rejected ones (whole requests) could not be read and were "
    "set aside.",
)
REPAIRS: Final = MetricSpec(
    "llmobs_repairs_total",
    "counter",
    "{repair}",
    ("repair",),
    "Values that were mended on the way in (clocks, ids, durations, text that is not UTF-8).",
)
SCORING_LAG: Final = MetricSpec(
    "llmobs_scoring_lag_seconds",
    "gauge",
    "s",
    (),
    "From the end of the newest span of the last batch to its analysis.",
)
BACKLOG: Final = MetricSpec(
    "llmobs_backlog_segments",
    "gauge",
    "{segment}",
    ("stage",),
    "Segments that wait: for ingest in the log, for scoring and analysis in the store.",
)
BACKLOG_AGE: Final = MetricSpec(
    "llmobs_backlog_seconds",
    "gauge",
    "s",
    ("stage",),
    "How long the oldest of these segments has waited.",
)
BROKER_LAG: Final = MetricSpec(
    "llmobs_log_lag_records",
    "gauge",
    "{record}",
    (),
    "Records in Kafka that were not read yet; absent without Kafka.",
)
ASIDE: Final = MetricSpec(
    "llmobs_aside_bytes",
    "gauge",
    "By",
    (),
    "Size of the requests that were set aside for a person to look at.",
)
LOST: Final = MetricSpec(
    "llmobs_lost_total",
    "counter",
    "{request}",
    ("reason",),
    "What was acknowledged and is not stored: corrupt (damaged on disk), no_room (could not be "
    "read, and no room to set it aside), expired (gone from Kafka before it was read).",
)
STORE_SIZE: Final = MetricSpec(
    "llmobs_store_bytes", "gauge", "By", (), "Size of the store on disk, compressed."
)
STORE_PARTS: Final = MetricSpec(
    "llmobs_store_parts",
    "gauge",
    "{part}",
    (),
    "Parts of the partition that has the most; merges bring them together. Inserts are slowed "
    "at 1,000 and refused at 3,000.",
)
STORE_MERGES: Final = MetricSpec("llmobs_store_merges", "gauge", "{merge}", (), "Merges under way.")
STORE_MUTATIONS: Final = MetricSpec(
    "llmobs_store_mutations", "gauge", "{mutation}", (), "Deletions under way."
)
LAST_CYCLE: Final = MetricSpec(
    "llmobs_last_cycle_timestamp_seconds",
    "gauge",
    "s",
    ("stage",),
    "When a stage last finished a cycle, in seconds since 1970: the heartbeat.",
)
PUBLISH_FAILURES: Final = MetricSpec(
    "llmobs_publish_failures_total",
    "counter",
    "{attempt}",
    ("target",),
    "Attempts to reach Grafana, an OTLP receiver or a channel that failed.",
)
EVALUATIONS_PUSHED: Final = MetricSpec(
    "llmobs_evaluations_pushed_total",
    "counter",
    "{evaluation}",
    ("outcome",),
    "Scores pushed over OTLP as events: sent, or lost (too many waited, or the receiver did not "
    "take them). Absent without otlp_evaluations.",
)
SERIES_FOLDED: Final = MetricSpec(
    "llmobs_series_folded_total",
    "counter",
    "{series}",
    ("metric",),
    'Label sets put under "(other)" because a metric had too many, counted once a batch.',
)

METRICS: Final = (
    CALLS,
    CALL_DURATION,
    CALL_TTFT,
    OPERATION_DURATION,
    TOKENS,
    CALL_TOKENS,
    COST,
    UNPRICED,
    EVALUATIONS,
    EVALUATION_SCORE,
    INPUT_FLAGS,
    INPUT_LANGUAGE,
    FEEDBACK,
    COMPLETENESS,
    MISSING,
    SCORER_FAILURES,
    DRIFT_LOG_EVALUE,
    DRIFT_LOG_THRESHOLD,
    DRIFT_ALARM,
    FINDINGS,
    ALERTS_FIRING,
    SESSIONS_ACTIVE,
    SESSION_COST,
    SESSION_CALLS,
    SESSION_COST_TOP,
    INGEST_ITEMS,
    REPAIRS,
    SCORING_LAG,
    BACKLOG,
    BACKLOG_AGE,
    BROKER_LAG,
    ASIDE,
    LOST,
    STORE_SIZE,
    STORE_PARTS,
    STORE_MERGES,
    STORE_MUTATIONS,
    LAST_CYCLE,
    PUBLISH_FAILURES,
    EVALUATIONS_PUSHED,
    SERIES_FOLDED,
)
"""All metrics, in the order in which they are published."""

_BY_NAME: Final = {spec.name: spec for spec in METRICS}


def metric(name: str) -> MetricSpec | None:
    """Find a metric by a name that a query uses.

    Args:
        name: A metric's name; a histogram's may end in _bucket, _count or _sum.

    Returns:
        The metric, None where llmobs publishes no such series.
    """
    for suffix in ("_bucket", "_count", "_sum"):
        stem = name.removesuffix(suffix)
        if stem != name and stem in _BY_NAME and _BY_NAME[stem].kind == "histogram":
            return _BY_NAME[stem]
    spec = _BY_NAME.get(name)
    return None if spec is None or spec.kind == "histogram" else spec
