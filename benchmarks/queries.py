"""What the store's queries cost: ``python -m benchmarks.queries [--spans N] [--json]``.

Fills an embedded store with a day of generated traffic (12 models, 5 services, 8 features,
sessions of about 5 calls, half a kilobyte of text a call) and asks what the page asks. CPU time
of the whole process, all threads of the engine included: the time on the clock depends on who
else is at work, CPU time hardly. With ``--store`` the store is kept, and asked again next time
without being filled.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from llmobs.analyzer.store import ClickHouseStore, open_store
from llmobs.records import (
    EVENT_SCHEMA,
    METRIC_SCHEMA,
    SPAN_SCHEMA,
    EventBatch,
    MetricBatch,
    ScoreColumn,
    Scores,
    SpanBatch,
)

_SEGMENT_SPANS: Final = 32_768
_DAY_NS: Final = 86_400_000_000_000
_START_NS: Final = 1_795_478_400_000_000_000  # 2026-11-24 00:00 UTC
_REPEATS: Final = 5

# A call is a root span of the feature and the model's span below it; a session makes 5 calls.
_CALLS_A_SESSION: Final = 5
_MODELS: Final = [f"model-{i}" for i in range(12)]
_SERVICES: Final = [f"service-{i}" for i in range(5)]
_FEATURES: Final = [f"feature-{i}" for i in range(8)]
_ERRORS: Final = ["", "timeout", "rate_limit_exceeded", "503"]

Ints = npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000, help="Spans in the store")
    parser.add_argument("--text-index", action="store_true", help="With an index of texts")
    parser.add_argument("--store", type=Path, help="Folder of a store to keep")
    parser.add_argument("--json", action="store_true", help="Print one JSON object a line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = (arguments.store or Path(folder) / "store").absolute()
        is_filled = path.exists()
        store = open_store(f"chdb://{path}", text_index=arguments.text_index)
        try:
            for row in chain(() if is_filled else (fill(store, arguments.spans),), ask(store)):
                text = "  ".join(f"{name}={value}" for name, value in row.items())
                print(json.dumps(row) if arguments.json else text, flush=True)
        finally:
            store.close()


def fill(store: ClickHouseStore, n_spans: int) -> dict[str, Any]:
    """Append `n_spans` spans with two scores a model call, in order of time, a segment at once."""
    cpu_s = 0.0
    for segment, (spans, scores) in enumerate(_day(n_spans)):
        before = time.process_time()
        store.append(
            segment,
            spans,
            EventBatch(EVENT_SCHEMA.empty_table()),
            MetricBatch(METRIC_SCHEMA.empty_table()),
        )
        store.append_scores(segment, spans, scores)
        cpu_s += time.process_time() - before
    sizes = store.sizes()
    return {
        "query": "fill",
        "n_spans": sizes["spans"],
        "n_scores": sizes["scores"],
        "cpu_us_a_span": round(cpu_s / sizes["spans"] * 1e6, 1),
        "bytes_a_span": round(sizes["bytes_a_span"]),
    }


def ask(store: ClickHouseStore) -> Iterator[dict[str, Any]]:
    """Ask each question once to warm the caches, then measure the median of some more."""
    _rest()
    window = (_START_NS, _START_NS + _DAY_NS)
    (newest,) = store.traces(*window, 1)
    questions: dict[str, Callable[[], object]] = {
        "overview": lambda: store.overview(*window),
        "overview, one service": lambda: store.overview(*window, service="service-1"),
        "overview, one user": lambda: store.overview(*window, user_id="user-1"),
        "series of 5 minutes": lambda: store.series(*window, 300),
        "trace": lambda: store.trace(newest["trace_id"]),
        "session": lambda: store.session(newest["session_id"]),
        "newest 100 traces": lambda: store.traces(*window, 100),
        "newest 100 sessions": lambda: store.sessions(*window, 100),
        "dearest 100 sessions": lambda: store.sessions(*window, 100, "cost"),
        "text, no match": lambda: store.traces(*window, 100, text="zyzzyva"),
        "text, rare": lambda: store.traces(*window, 100, text="zygote"),
        "cost by model": lambda: store.cost(*window, "request_model"),
        "cost by user": lambda: store.cost(*window, "user_id"),
    }
    for name, question in questions.items():
        question()
        cpu_s, wall_s = [], []
        for _ in range(_REPEATS):
            cpu, wall = time.process_time(), time.perf_counter()
            question()
            cpu_s.append(time.process_time() - cpu)
            wall_s.append(time.perf_counter() - wall)
        yield {
            "query": name,
            "cpu_s": round(statistics.median(cpu_s), 4),
            "wall_s": round(statistics.median(wall_s), 4),
        }


def _rest() -> None:
    """Wait until the engine has merged its parts, a minute at most: that is the fill's cost."""
    for _ in range(60):
        before = time.process_time()
        time.sleep(1)
        if time.process_time() - before < 0.05:
            return


def _day(n_spans: int) -> Iterator[tuple[SpanBatch, Scores]]:
    chance = np.random.default_rng(1)
    sentences = _sentences(chance, 20_000)
    n_calls = max(n_spans // 2, 1)
    half = _SEGMENT_SPANS // 2
    for first in range(0, n_calls, half):
        calls = np.arange(first, min(first + half, n_calls))
        yield _segment(chance, calls, calls * (_DAY_NS // n_calls) + _START_NS, sentences)


def _sentences(chance: np.random.Generator, n: int) -> pa.StringArray:
    letters = np.array(list("etaoinshrdlcumwfgypbvk"))
    words = ["".join(chance.choice(letters, chance.integers(2, 10))) for _ in range(5000)]
    places = (5000 * chance.random((n, 14)) ** 3).astype(np.int64)  # few words are many
    texts = [" ".join(words[i] for i in row) + "." for row in places.tolist()]
    texts[0] += " zygote"
    return pa.array(texts)


def _segment(
    chance: np.random.Generator, calls: Ints, ts_ns: Ints, sentences: pa.StringArray
) -> tuple[SpanBatch, Scores]:
    """Make the root spans of some calls and then their models' spans."""
    n = len(calls)
    # 4,000 sessions are open at a time, and whoever calls next is one of them.
    wave, place = np.divmod(calls, 4_000 * _CALLS_A_SESSION)
    session = wave * 4_000 + (place * 7919) % 4_000
    user = session % 20_000
    feature = session % len(_FEATURES)
    # A feature has a favourite among three models of its own.
    model = (feature * 3 + (session % 10 >= 6) + (session % 10 >= 9)) % len(_MODELS)
    failed = chance.random(n) < 0.02
    error = np.where(failed, 1 + chance.integers(0, 3, n), 0)
    n_input = chance.integers(50, 4000, n)
    n_output = chance.integers(10, 800, n)
    duration = (chance.lognormal(0.3, 0.7, n) * 1e9).astype(np.int64)
    root_id, model_id = chance.bytes(8 * n), chance.bytes(8 * n)
    texts = [_text(chance, sentences, n, parts) for parts in (2, 4)]
    null = pa.nulls(n, pa.int64())
    both: dict[str, tuple[pa.Array, pa.Array]] = {
        "ts_ns": (pa.array(ts_ns), pa.array(ts_ns + 2_000_000)),
        "duration_ns": (pa.array(duration + 4_000_000), pa.array(duration)),
        "trace_id": _twice(_ids(chance.bytes(16 * n), 16)),
        "span_id": (_ids(root_id, 8), _ids(model_id, 8)),
        "parent_id": (_ids(bytes(8 * n), 8), _ids(root_id, 8)),
        "name": (pa.repeat("answer", n), pa.repeat("chat", n)),
        "kind": (pa.repeat(pa.scalar(1, pa.uint8()), n), pa.repeat(pa.scalar(3, pa.uint8()), n)),
        "status": _twice(pa.array(np.where(failed, 2, 0).astype(np.uint8))),
        "service": _twice(_named(_SERVICES, feature % len(_SERVICES))),
        "environment": _twice(pa.repeat("production", n)),
        "operation": (pa.repeat("invoke_agent", n), pa.repeat("chat", n)),
        "request_model": (pa.repeat("", n), _named(_MODELS, model)),
        "provider": (pa.repeat("", n), _named(["openai", "anthropic", "mistral"], model % 3)),
        "feature": _twice(_named(_FEATURES, feature)),
        "session_id": _twice(_numbered("session-", session)),
        "user_id": _twice(_numbered("user-", user)),
        "error_type": _twice(_named(_ERRORS, error)),
        "input_tokens": (null, pa.array(n_input)),
        "output_tokens": (null, pa.array(n_output)),
        "ttft_ns": (null, pa.array(duration // 4)),
        "cost_usd": (
            pa.nulls(n, pa.float64()),
            pa.array((n_input + 4 * n_output) * (1 + model) * 1e-7),
        ),
        "input_text": _twice(texts[0]),
        "output_text": _twice(texts[1]),
        "weight": _twice(pa.array(np.ones(n))),
    }
    columns = [
        pa.chunked_array(both[field.name], field.type)
        if field.name in both
        else pa.chunked_array([_plain(field.type, 2 * n)])
        for field in SPAN_SCHEMA
    ]
    spans = SpanBatch(pa.Table.from_arrays(columns, schema=SPAN_SCHEMA))
    return spans, _scores(chance, n)


def _scores(chance: np.random.Generator, n: int) -> Scores:
    columns = []
    for name in ("toxicity", "injection"):
        values = np.concatenate([np.full(n, np.nan), chance.beta(1, 8, n)])
        labels = np.where(values > 0.5, "fail", "pass").tolist()
        columns.append(ScoreColumn(name, "1", "input", values, labels, [""] * (2 * n)))
    return Scores(columns=tuple(columns), embeddings={})


def _plain(kind: pa.DataType, n: int) -> pa.Array:
    if pa.types.is_map(kind):
        return pa.MapArray.from_arrays(
            np.zeros(n + 1, dtype=np.int32),
            pa.array([], pa.string()),
            pa.array([], kind.item_type),
        )
    return pa.repeat("", n) if kind == pa.string() else pa.nulls(n, kind)


def _twice(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    return column, column


def _ids(raw: bytes, width: int) -> pa.Array:
    return pa.Array.from_buffers(pa.binary(width), len(raw) // width, [None, pa.py_buffer(raw)])


def _named(names: list[str], places: Ints) -> pa.Array:
    return pa.array(names).take(pa.array(places))


def _numbered(prefix: str, numbers: Ints) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "")


def _text(chance: np.random.Generator, sentences: pa.Array, n: int, n_sentences: int) -> pa.Array:
    # The rare word's sentence is drawn by its number alone, once in 50,000 texts.
    parts = [
        sentences.take(pa.array(1 + chance.integers(0, len(sentences) - 1, n)))
        for _ in range(n_sentences - 1)
    ]
    rare = np.where(chance.random(n) < 2e-5, 0, 1 + chance.integers(0, len(sentences) - 1, n))
    return pc.binary_join_element_wise(*parts, sentences.take(pa.array(rare)), " ")


if __name__ == "__main__":
    main()
