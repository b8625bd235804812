"""Parquet files of what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmobs.analyzer.store import ClickHouseStore, export
from llmobs.analyzer.store.base import EXPORTED, Exported
from llmobs.errors import ConfigurationError
from llmobs.records import EVENT_SCHEMA, SPAN_SCHEMA
from tests.analyzer.store.rows import (
    NO_EVENTS,
    NO_METRICS,
    T0_NS,
    events,
    generated,
    scores,
    span_id,
    spans,
    trace_id,
)

DAY_NS = 86_400_000_000_000
EVER = (0, 2**63 - 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "exported"


def exported(
    store: ClickHouseStore,
    folder: Path,
    since_ns: int,
    until_ns: int,
    what: Sequence[Exported] = EXPORTED,
) -> dict[str, int]:
    """Write the files of an export, and return how many rows each table has."""
    n_rows: dict[str, int] = dict.fromkeys(what, 0)
    folder.mkdir(exist_ok=True)
    for file in store.export_files(since_ns, until_ns, what):
        path = folder / file.name
        path.write_bytes(b"".join(store.export_parts(file)))
        assert pq.read_metadata(path).num_rows == file.n_rows
        n_rows[file.table] += file.n_rows
    return n_rows


def rows_of(table: pa.Table) -> list[tuple[object, ...]]:
    names = ("ts_ns", "trace_id", "span_id")
    return sorted(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def test_spans_come_back_as_they_were_stored(store: ClickHouseStore, folder: Path) -> None:
    batches = [generated(segment) for segment in range(4)]
    for segment, batch in enumerate(batches):
        store.append(segment, batch, NO_EVENTS, NO_METRICS)
    assert exported(store, folder, *EVER) == {"spans": 200, "scores": 0, "events": 0}
    (file,) = folder.iterdir()
    assert file.name == "spans-2025-11-24.parquet"
    written = pq.read_table(file)
    assert written.schema.equals(SPAN_SCHEMA)
    order = [("ts_ns", "ascending"), ("span_id", "ascending")]
    stored = pa.concat_tables([batch.table for batch in batches])
    assert written.sort_by(order).equals(stored.sort_by(order).cast(SPAN_SCHEMA))


def test_each_day_has_its_file_and_the_window_bounds_them(
    store: ClickHouseStore, folder: Path
) -> None:
    starts = [T0_NS - 1, T0_NS, T0_NS + DAY_NS, T0_NS + 3 * DAY_NS]
    batch = spans(*({"ts_ns": ts, "span_id": span_id(i + 1)} for i, ts in enumerate(starts)))
    store.append(1, batch, NO_EVENTS, NO_METRICS)
    counts = exported(store, folder, T0_NS, T0_NS + 3 * DAY_NS, what=["spans"])
    assert counts == {"spans": 2}
    days = {path.name: rows_of(pq.read_table(path)) for path in folder.iterdir()}
    assert {name: [row[0] for row in rows] for name, rows in days.items()} == {
        "spans-2025-11-24.parquet": [T0_NS],
        "spans-2025-11-25.parquet": [T0_NS + DAY_NS],
    }


def test_scores_and_events_are_exported_too(store: ClickHouseStore, folder: Path) -> None:
    batch = spans({"session_id": "s", "feature": "chat"})
    event = events({"trace_id": trace_id(1), "event_name": "feedback", "body": "good"})
    store.append(1, batch, event, NO_METRICS)
    store.append_scores(1, batch, scores(batch, toxicity=[-1.0]))
    exported(store, folder, *EVER, what=["scores", "events"])
    (score,) = pq.read_table(folder / "scores-2025-11-24.parquet").to_pylist()
    assert score["ts_ns"] == T0_NS
    assert (score["name"], score["value"], score["label"]) == ("toxicity", -1.0, "fail")
    assert (score["session_id"], score["feature"]) == ("s", "chat")
    written = pq.read_table(folder / "events-2025-11-24.parquet")
    assert written.equals(event.table.cast(EVENT_SCHEMA))


def test_a_day_is_written_in_groups_of_segments_and_none_is_left_out(
    store: ClickHouseStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_FIRST_ROWS", 60)
    monkeypatch.setattr(export, "_GROUP_BYTES", 20_000)
    for segment in range(9):
        store.append(segment, generated(segment), NO_EVENTS, NO_METRICS)
    assert exported(store, folder, *EVER, what=["spans"]) == {"spans": 450}
    file = pq.ParquetFile(folder / "spans-2025-11-24.parquet")
    assert file.num_row_groups > 2
    expected = [row for segment in range(9) for row in rows_of(generated(segment).table)]
    assert rows_of(file.read()) == sorted(expected)


def test_what_can_not_be_exported_says_so(store: ClickHouseStore, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="users"):
        exported(store, folder, *EVER, what=["users"])  # type: ignore[list-item]
