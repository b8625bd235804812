"""Simulated traffic: sessions of a few calls, as batches of spans and scores, with incidents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from llmobs.records import SPAN_SCHEMA, STATUS_ERROR, STATUS_OK, ScoreColumn, Scores, SpanBatch

N_DIMENSIONS = 48
START_NS = 1_767_600_000_000_000_000  # Monday, 2026-01-05 08:00 UTC
_RNG_OF_THE_WORLD = np.random.default_rng(7)
TOPICS = 10
NEW_TOPICS = 2
# Texts embed near the centre of their topic; answers near that of the model's answer to it.
_CENTRES = _RNG_OF_THE_WORLD.normal(size=(TOPICS + NEW_TOPICS, N_DIMENSIONS)) / 7.0
_ANSWERS = _RNG_OF_THE_WORLD.normal(size=(TOPICS + NEW_TOPICS, N_DIMENSIONS)) / 7.0
_OTHER_MODEL = _RNG_OF_THE_WORLD.normal(size=N_DIMENSIONS) / 14.0
_WORDS = [
    *("billing invoice", "password login", "shipping parcel", "weather rain", "python code"),
    *("recipe soup", "movie actor", "football score", "garden roses", "piano lesson"),
    *("visa passport", "engine tyres"),
]


@dataclass(frozen=True)
class Incident:
    """What goes wrong, from when on, where, and how strongly.

    Attributes:
        kind: `topic`, `toxicity`, `injection`, `pii`, `refusal`, `errors`: share of sessions
            or calls; `model`, `cost`, `latency`, `relevance`, `language`: see `Traffic`.
    """

    kind: str
    at_s: float
    size: float
    feature: str = "assistant"


@dataclass
class Traffic:
    """A stream of calls.

    Attributes:
        sessions_a_s: By feature.
        call_gap_s: Mean time between calls of a session.
        starts_s: Features that appear later than the others.
    """

    seed: int = 0
    duration_s: float = 120.0
    sessions_a_s: dict[str, float] = field(
        default_factory=lambda: {"assistant": 10.0, "support": 10.0, "reasoning": 10.0}
    )
    mean_calls: float = 3.0
    call_gap_s: float = 0.7
    incidents: tuple[Incident, ...] = ()
    starts_s: dict[str, float] = field(default_factory=dict)
    id_kind: Literal["session", "user", "trace"] = "session"

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 1])
        columns: list[dict[str, npt.NDArray[Any]]] = [
            self._feature(rng, name, rate) for name, rate in self.sessions_a_s.items()
        ]
        merged = {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
        order = np.argsort(merged["end_s"], kind="stable")
        self.columns = {name: column[order] for name, column in merged.items()}

    def _feature(
        self, rng: np.random.Generator, feature: str, rate: float
    ) -> dict[str, npt.NDArray[Any]]:
        begin = self.starts_s.get(feature, 0.0)
        n_sessions = rng.poisson(rate * (self.duration_s - begin))
        start_s = np.sort(rng.uniform(begin, self.duration_s, n_sessions))
        n_calls = rng.geometric(1 / self.mean_calls, n_sessions)
        session = np.repeat(np.arange(n_sessions), n_calls)
        n = len(session)
        first = np.concatenate([[0], np.cumsum(n_calls)[:-1]])
        gaps = rng.exponential(self.call_gap_s, n)
        gaps[first] = 0.0
        elapsed = np.cumsum(gaps)
        at_s = start_s[session] + elapsed - elapsed[first][session]

        def share(kind: str) -> npt.NDArray[np.float64]:
            """Size of an incident at the time of each call; by session for topics."""
            size = np.zeros(n)
            for incident in self.incidents:
                if incident.kind == kind and incident.feature == feature:
                    time = start_s[session] if kind in ("topic", "language") else at_s
                    size = np.where(time >= incident.at_s, incident.size, size)
            return size

        weights = 1.0 / np.arange(1, TOPICS + 1) ** 0.6
        topic_of = rng.choice(TOPICS, n_sessions, p=weights / weights.sum())
        moved = rng.random(n_sessions) < share("topic")[first]
        topic_of = np.where(moved, TOPICS + rng.integers(0, NEW_TOPICS, n_sessions), topic_of)
        topic = topic_of[session]
        language_of = np.where(rng.random(n_sessions) < 0.06, "es", "en")
        foreign = rng.random(n_sessions) < share("language")[first]
        language_of = np.where(foreign, "fi", language_of)
        inputs = _CENTRES[topic] + rng.normal(size=(n, N_DIMENSIONS)) / 25.0
        outputs = _ANSWERS[topic] + rng.normal(size=(n, N_DIMENSIONS)) / 14.0
        outputs += share("model")[:, None] * _OTHER_MODEL
        own, call = rng.normal(size=n_sessions)[session], rng.normal(size=n)
        log_in = 5.0 + 0.1 * topic + 0.5 * own + 0.4 * call + np.log1p(share("cost"))
        log_out = 5.5 - 0.1 * topic + 0.4 * own + 0.4 * rng.normal(size=n)
        log_out += 0.8 * share("model") + np.log1p(share("cost"))
        risky = rng.random(n_sessions)[session] < 0.05

        def happens(kind: str, base: float) -> npt.NDArray[np.bool_]:
            usual = np.where(risky, 10 * base, base / 2)
            return rng.random(n) < np.maximum(usual, share(kind))

        duration_s = np.exp(-0.5 + 0.5 * rng.normal(size=n) + 0.2 * own)
        duration_s *= (1.0 + share("latency")) * 0.5
        return {
            "start_s": at_s,
            "end_s": at_s + duration_s,
            "feature": np.full(n, feature),
            "session": np.char.add(f"{feature}-", session.astype(str)),
            "topic": topic,
            "language": language_of[session],
            "inputs": inputs.astype(np.float32),
            "outputs": outputs.astype(np.float32),
            "input_tokens": np.exp(log_in).astype(np.int64),
            "output_tokens": np.exp(log_out).astype(np.int64),
            "relevance": 0.7 + 0.08 * own + 0.08 * rng.normal(size=n) - share("relevance"),
            "toxicity": happens("toxicity", 0.001),
            "injection": happens("injection", 0.0005),
            "refusal": happens("refusal", 0.01),
            "pii": happens("pii", 0.004),
            "errors": happens("errors", 0.002),
            "trace": rng.integers(0, 256, (n, 16), dtype=np.uint8),
        }

    def batches(
        self, every_s: float = 0.5, since_s: float = 0.0
    ) -> Iterator[tuple[SpanBatch, Scores, int]]:
        """Yield (spans, scores, now_ns) for each step of time."""
        edges = np.arange(since_s, self.duration_s + every_s, every_s)
        rows = np.searchsorted(self.columns["end_s"], edges)
        for i in range(len(edges) - 1):
            part = slice(int(rows[i]), int(rows[i + 1]))
            yield (*self.batch(part), START_NS + int(edges[i + 1] * 1e9))

    def batch(self, part: slice) -> tuple[SpanBatch, Scores]:
        """Return some of the calls."""
        c = {name: column[part] for name, column in self.columns.items()}
        n = len(c["end_s"])
        start_ns = START_NS + (c["start_s"] * 1e9).astype(np.int64)
        cost = (c["input_tokens"] + 4 * c["output_tokens"]) * 1e-6
        spans = spans_of(
            ts_ns=start_ns,
            duration_ns=START_NS + (c["end_s"] * 1e9).astype(np.int64) - start_ns,
            trace_id=[row.tobytes() for row in c["trace"]],
            status=np.where(c["errors"], STATUS_ERROR, STATUS_OK).astype(np.uint8),
            service=["shop"] * n,
            operation=["chat"] * n,
            feature=c["feature"].tolist(),
            session_id=c["session"].tolist() if self.id_kind == "session" else [""] * n,
            user_id=c["session"].tolist() if self.id_kind == "user" else [""] * n,
            request_model=["small"] * n,
            response_model=["small-2026-01"] * n,
            input_tokens=c["input_tokens"],
            output_tokens=c["output_tokens"],
            cost_usd=cost,
            input_text=[f"please help with {_WORDS[topic]}" for topic in c["topic"]],
        )
        rates = [
            ("toxicity", "output"),
            ("refusal", "output"),
            ("injection", "input"),
            ("pii", "input"),
        ]
        columns = [score(name, target, c[name]) for name, target in rates]
        columns.append(score("language", "input", np.ones(n), c["language"].tolist()))
        columns.append(score("relevance", "pair", c["relevance"]))
        return spans, Scores(tuple(columns), {"input": c["inputs"], "output": c["outputs"]})


def score(
    name: str, target: Any, values: npt.NDArray[Any], labels: list[str] | None = None
) -> ScoreColumn:
    """Return a score column; by default a true value fails."""
    said = labels or np.where(values.astype(bool), "fail", "pass").tolist()
    return ScoreColumn(name, "1", target, values.astype(np.float64), said, [""] * len(values))


def spans_of(**columns: Any) -> SpanBatch:
    """Return spans with some columns given, weight 1, and everything else empty, 0 or null."""
    n = len(columns["ts_ns"])
    arrays = []
    for column in SPAN_SCHEMA:
        if column.name == "weight" and "weight" not in columns:
            arrays.append(pa.array(np.ones(n)))
        elif column.name in columns:
            arrays.append(pa.array(columns[column.name], column.type))
        elif column.nullable:
            arrays.append(pa.nulls(n, column.type))
        elif pa.types.is_map(column.type):
            arrays.append(pa.array([[]] * n, column.type))
        elif pa.types.is_fixed_size_binary(column.type):
            arrays.append(pa.array([bytes(column.type.byte_width)] * n, column.type))
        elif pa.types.is_string(column.type):
            arrays.append(pa.array([""] * n, column.type))
        else:
            arrays.append(pa.array(np.zeros(n), column.type))
    return SpanBatch(pa.Table.from_arrays(arrays, schema=SPAN_SCHEMA))
