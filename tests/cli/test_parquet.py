"""What was exported and is replayed becomes the same rows again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmobs.analyzer.decode import check, decode_events, decode_spans
from llmobs.analyzer.normalize import normalize
from llmobs.cli.parquet import events_request, spans_request
from llmobs.cli.recorded import read_recorded
from llmobs.errors import BadRequestError
from llmobs.records import SPAN_SCHEMA, EventBatch, SpanBatch
from tests.analyzer.normalize.spans import DATA, NOW_NS
from tests.analyzer.store.rows import events, generated, span_id, spans

# These are stored only where the texts do not say it all; the same words may come back without.
MESSAGES = ("input_messages", "output_messages")


def read(*bodies: bytes) -> SpanBatch:
    repairs: Counter[str] = Counter()
    batch = normalize(decode_spans(bodies), now_ns=2**62, repairs=repairs)
    assert not repairs
    return batch


def again(batch: SpanBatch) -> SpanBatch:
    return read(spans_request(batch.table.to_pylist()))


def rows_of(batch: SpanBatch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = batch.table.to_pylist()
    for row in rows:
        row["attributes_s"] = dict(row["attributes_s"])
        row["attributes_n"] = dict(row["attributes_n"])
    return sorted(rows, key=lambda row: (row["trace_id"], row["span_id"], row["name"]))


DIALECTS = [path.stem for path in sorted(DATA.glob("*.json"))]


@pytest.mark.parametrize("name", DIALECTS)
def test_spans_of_every_dialect_come_back_as_they_were_stored(name: str) -> None:
    body, _ = check("traces", (DATA / f"{name}.json").read_bytes(), True)
    stored = normalize(decode_spans([body]), now_ns=2**62)
    for before, after in zip(rows_of(stored), rows_of(again(stored)), strict=True):
        for column in MESSAGES:
            said, said_again = before.pop(column), after.pop(column)
            assert said_again in (said, "")
        assert after == before


def test_numbers_times_and_weights_come_back_to_the_last_bit() -> None:
    batch = spans(
        {
            "operation": "chat",
            "input_tokens": 0,
            "output_tokens": 2**40,
            "ttft_ns": 123_456_789,
            "duration_ns": 987_654_321,
            "weight": 8.0,
            "status": 2,
            "status_message": "429",
            "kind": 3,
            "parent_id": span_id(9),
            "attributes_n": [("temperature", 0.1), ("seed", 7.0)],
            "attributes_s": [("http.route", "/ask"), ("empty", "")],
        }
    )
    assert rows_of(again(batch)) == rows_of(batch)


def test_a_weight_that_is_no_power_of_two_comes_back_nearly() -> None:
    batch = spans({"weight": 3.0})
    assert again(batch).numbers("weight")[0] == pytest.approx(3.0, rel=1e-12)


TOLD = json.dumps(
    [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "response": "shipped"}]},
        {"role": "user", "parts": [{"type": "text", "content": "Where?"}]},
    ]
)


@pytest.mark.parametrize(
    "columns",
    [
        {"operation": "chat", "input_text": 'He said "hi"\n{', "output_text": "[1]"},
        {"operation": "chat", "system_text": "Be brief."},
        {
            "operation": "chat",
            "context_text": "a page\nanother",
            "attributes_s": [
                ("gen_ai.retrieval.documents", '[{"content":"a page"},{"text":"another"}]')
            ],
        },
        {
            "operation": "chat",
            "input_text": "Where?",
            "system_text": "Be brief.",
            "context_text": "shipped\nand a page",
            "input_messages": TOLD,
            "attributes_s": [("gen_ai.retrieval.documents", '[{"content":"and a page"}]')],
        },
        {"operation": "chat", "input_text": "Where?", "system_text": "x", "input_messages": TOLD},
        {"operation": "retrieval", "input_text": "late orders", "output_text": "one\ntwo"},
        {"operation": "execute_tool", "tool": "t", "input_text": '"quoted"', "output_text": "{"},
        {"operation": "", "name": "GET /"},
        {"operation": "", "provider": "openai", "request_model": "gpt-4o"},  # told by another span
    ],
)
def test_texts_come_back_whatever_they_look_like(columns: dict[str, Any]) -> None:
    if "input_messages" in columns:
        columns = {"context_text": "shipped", **columns}
    batch = spans(columns)
    assert rows_of(again(batch)) == rows_of(batch)


def test_events_come_back_as_they_were_stored() -> None:
    batch = events(
        {
            "ts_ns": NOW_NS,
            "trace_id": b"t" * 16,
            "span_id": b"s" * 8,
            "service": "shop",
            "environment": "prod",
            "event_name": "gen_ai.evaluation.result",
            "severity": 9,
            "body": '{"rating": 1}',
            "attributes_s": [("gen_ai.evaluation.name", "helpful")],
            "attributes_n": [("gen_ai.evaluation.score.value", 0.5)],
        },
        {"ts_ns": NOW_NS + 1},
    )
    body = events_request(batch.table.to_pylist())
    assert _rows(decode_events([body])[0]) == _rows(batch)


def _rows(batch: EventBatch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = batch.table.to_pylist()
    return sorted(rows, key=lambda row: row["ts_ns"])


def test_a_file_is_read_in_requests_and_goes_on_at_any_of_their_ends(tmp_path: Path) -> None:
    file = tmp_path / "spans-2025-11-24.parquet"
    table = pa.concat_tables([generated(segment, 500).table for segment in range(4)])
    pq.write_table(table.cast(SPAN_SCHEMA), file, row_group_size=700)
    requests = list(read_recorded(file, "metrics"))
    assert {request.signal for request in requests} == {"traces"}
    assert sum(request.n_items for request in requests) == 2000
    assert [request.end for request in requests] == sorted({r.end for r in requests})
    assert requests[-1].n_read == file.stat().st_size
    for request in requests[:-1]:
        rest = list(read_recorded(file, "traces", request.end))
        assert rest[-1].end == 2000
        assert sum(r.n_items for r in rest) == 2000 - request.end
    stored = {row["span_id"] for row in table.to_pylist()}
    assert stored == set(read(*(r.body for r in requests)).table.column("span_id").to_pylist())


def test_a_parquet_file_of_something_else_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file.parquet"
    pq.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(BadRequestError, match="no Parquet file of spans or events"):
        list(read_recorded(file, "traces"))
