"""The calls of one batch as arrays: all that monitors look at, in order of their end."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from llmobs.analyzer.monitor.catalog import MEANS, RATES
from llmobs.records import STATUS_ERROR, FloatArray, ScoreColumn, Scores, SpanBatch
from llmobs.semconv import INFERENCE_OPERATIONS

__all__ = ["Calls", "PlaceKey", "Vectors"]

PlaceKey: TypeAlias = tuple[str, str, str]
"""(service, environment, feature)."""
Vectors: TypeAlias = npt.NDArray[np.float32]

_VERDICTS: Final = {"pass": 0, "fail": 1}
# Names of models are shorter; a longer one is a text that somebody put there.
_MAX_MODEL_CHARS: Final = 120
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls in order of their end; n is their number.

    A sampled call stands for others (`weight`): costs are multiplied by it, all else is of the
    calls that were kept. A share or a mean of those is right where traces are kept at random,
    but a session of which more calls are kept has more chances to hold a bad one: a sampling
    ratio that changes is a change, and is found as one.

    Attributes:
        places: Where each happened.
        sessions: A hash of the session id, else of the user id, else of the trace id: it only
            has to tell sessions apart, and is kept in the monitors' state.
        at_ns: Shape (n,), when each ended; a call from the future ends now.
        traces: Shape (n, 16), trace ids as bytes.
        inputs: Shape (n, n_dimensions), embeddings, rows of NaN where unknown; n_dimensions
            is 0 when the batch has none.
        outputs: As `inputs`.
        texts: What users asked.
        languages: Codes, "" where unknown.
        means: Shape (n, len(MEANS)), NaN where unknown.
        rates: Shape (n, len(RATES)): 1 positive, 0 negative, -1 unknown.
        models: (request model, response model) of each, shortened.
    """

    places: list[PlaceKey]
    sessions: list[str]
    at_ns: npt.NDArray[np.int64]
    traces: npt.NDArray[np.uint8]
    inputs: Vectors
    outputs: Vectors
    texts: list[str]
    languages: list[str]
    means: FloatArray
    rates: npt.NDArray[np.int8]
    models: list[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.at_ns)

    @classmethod
    def of(cls, spans: SpanBatch, scores: Scores, now_ns: int) -> Calls:
        """Take the calls (spans of inference operations) out of a batch and its scores."""
        operations = spans.texts("operation")
        rows = np.flatnonzero([operation in INFERENCE_OPERATIONS for operation in operations])
        end_ns = spans.ints("ts_ns")[rows] + spans.ints("duration_ns")[rows]
        order = np.argsort(end_ns, kind="stable")
        rows, end_ns = rows[order], np.minimum(end_ns[order], now_ns)

        def text(name: str) -> list[str]:
            return _pick(spans.texts(name), rows)

        language = _column(scores, ("language", "input"))
        trace_ids = _pick(spans.table.column("trace_id").to_pylist(), rows)
        sessions = [
            _hashed(f"s:{session}" if session else f"u:{user}" if user else f"t:{trace.hex()}")
            for session, user, trace in zip(
                text("session_id"), text("user_id"), trace_ids, strict=True
            )
        ]
        traces = np.frombuffer(b"".join(trace_ids), np.uint8).reshape(len(rows), 16)
        return cls(
            places=list(zip(text("service"), text("environment"), text("feature"), strict=True)),
            sessions=sessions,
            at_ns=end_ns,
            traces=traces,
            inputs=_embeddings(scores, "input", rows),
            outputs=_embeddings(scores, "output", rows),
            texts=text("input_text"),
            languages=[""] * len(rows) if language is None else _pick(language.labels, rows),
            means=_means(spans, scores, rows),
            rates=_rates(spans, scores, rows),
            models=[
                (asked[:_MAX_MODEL_CHARS], answered[:_MAX_MODEL_CHARS])
                for asked, answered in zip(
                    text("request_model"), text("response_model"), strict=True
                )
            ],
        )

    def take(self, rows: npt.NDArray[np.int64]) -> Calls:
        """Return some of the calls."""
        if len(rows) == len(self):
            return self
        return Calls(
            _pick(self.places, rows),
            _pick(self.sessions, rows),
            self.at_ns[rows],
            self.traces[rows],
            self.inputs[rows],
            self.outputs[rows],
            _pick(self.texts, rows),
            _pick(self.languages, rows),
            self.means[rows],
            self.rates[rows],
            _pick(self.models, rows),
        )


def _hashed(identity: str) -> str:
    return hashlib.blake2b(identity.encode(errors="replace"), digest_size=12).hexdigest()


def _pick(column: Sequence[_Item], rows: npt.NDArray[np.int64]) -> list[_Item]:
    return [column[row] for row in rows]


def _column(scores: Scores, place: tuple[str, str]) -> ScoreColumn | None:
    return next((c for c in scores.columns if (c.name, c.target) == place), None)


def _embeddings(scores: Scores, target: str, rows: npt.NDArray[np.int64]) -> Vectors:
    vectors = scores.embeddings.get(target)
    if vectors is None or vectors.ndim != 2:
        return np.zeros((len(rows), 0), np.float32)
    return np.asarray(vectors[rows], dtype=np.float32)


def _means(spans: SpanBatch, scores: Scores, rows: npt.NDArray[np.int64]) -> FloatArray:
    """Return one column for each of `MEANS`; a log of 0 or less is not known."""
    n = len(spans)
    relevance = _column(scores, ("relevance", "pair"))
    failed = spans.ints("status") == STATUS_ERROR
    values = {
        "input.length": spans.numbers("input_tokens") + 1.0,
        "output.length": spans.numbers("output_tokens") + 1.0,
        "output.relevance": np.full(n, np.nan) if relevance is None else relevance.values,
        # A call that failed says how long a failure takes, which calls.errors watches.
        "calls.latency": np.where(failed, np.nan, spans.numbers("duration_ns") / 1e9),
        "session.cost": spans.numbers("cost_usd") * spans.numbers("weight"),
    }
    out = np.stack([values[spec.name][rows] for spec in MEANS], axis=1)
    for j, spec in enumerate(MEANS):
        if spec.is_log:
            out[:, j] = np.where(out[:, j] > 0, out[:, j], np.nan)
            if not spec.is_sum:  # of a sum the log is taken when the session closes
                out[:, j] = np.log(out[:, j])
    return out


def _rates(spans: SpanBatch, scores: Scores, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """Return one column for each of `RATES`."""
    out = np.full((len(rows), len(RATES)), -1, np.int8)
    for j, spec in enumerate(RATES):
        if spec.score is None:
            out[:, j] = spans.ints("status")[rows] == STATUS_ERROR
        elif column := _column(scores, spec.score):
            out[:, j] = [_VERDICTS.get(column.labels[row], -1) for row in rows]
    return out
