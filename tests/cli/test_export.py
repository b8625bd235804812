"""`llmobs export`, against the real page over a real store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from llmobs.analyzer.store import ClickHouseStore, export, open_store
from llmobs.analyzer.store.base import ExportFile
from llmobs.cli.commands import cli
from llmobs.errors import StoreError
from llmobs.records import EVENT_SCHEMA, SPAN_SCHEMA
from llmobs.web.app import create_app
from tests.analyzer.store.rows import NO_METRICS, events, generated, scores
from tests.cli.test_doctor import listening
from tests.web.fakes import FakeState, sample_page_metrics, sample_ready

DAY_NS = 86_400_000_000_000
NOW_NS = time.time_ns() // DAY_NS * DAY_NS + DAY_NS // 2  # noon
TOKEN = "a-long-enough-token"


class Stumbling(ClickHouseStore):
    """A store whose disk breaks in the middle of an export, when told so."""

    breaks = False

    def export_parts(self, file: ExportFile) -> Iterator[bytes]:
        for part in super().export_parts(file):
            yield part
            if self.breaks:
                raise StoreError("the disk broke")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    opened = open_store(f"chdb://{tmp_path_factory.mktemp('data') / 'store'}")
    opened.__class__ = Stumbling
    for segment in range(3):
        batch = generated(segment, 200, start_ns=NOW_NS - segment * DAY_NS)
        event = events({"ts_ns": NOW_NS, "event_name": "feedback"})
        opened.append(segment, batch, event, NO_METRICS)
        opened.append_scores(segment, batch, scores(batch, toxicity=[0.5] * 200))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def url(store: ClickHouseStore) -> Iterator[str]:
    app = create_app(
        store,
        FakeState(NOW_NS // 1_000_000),
        metrics=sample_page_metrics,
        ready=sample_ready,
        token=TOKEN,
        clock_ns=lambda: NOW_NS + DAY_NS // 4,
    )
    with listening(app) as address:
        yield address


def run(url: str, folder: Path, *words: str, token: str = TOKEN) -> Result:
    arguments = ["export", "--url", url, "--token", token, "--to", str(folder), *words]
    return CliRunner().invoke(cli, arguments)


def test_spans_scores_and_events_come_as_one_file_a_table_and_day(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "exported"
    result = run(url, folder, "--since", "7d", "--json")
    assert result.exit_code == 0, result.output
    written = [json.loads(line) for line in result.stdout.splitlines()]
    assert {Path(row["file"]) for row in written} == set(folder.iterdir())
    assert sum(row["rows"] for row in written) == 600 + 600 + 3
    assert "7 files" in result.stderr
    spans = pa.concat_tables([pq.read_table(p) for p in sorted(folder.glob("spans-*"))])
    assert spans.schema.equals(SPAN_SCHEMA)
    stored = {i for n in range(3) for i in generated(n, 200).table.column("span_id").to_pylist()}
    assert set(spans.column("span_id").to_pylist()) == stored
    (event_file,) = folder.glob("events-*")
    assert pq.read_schema(event_file).equals(EVENT_SCHEMA)


def test_an_export_replaces_an_earlier_one(url: str, tmp_path: Path) -> None:
    assert run(url, tmp_path, "--since", "24h", "--what", "spans").exit_code == 0
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"of an earlier one")
    assert run(url, tmp_path, "--since", "24h", "--what", "spans").exit_code == 0
    assert list(tmp_path.iterdir()) == [file]
    assert pq.read_metadata(file).num_rows == 200


def test_a_window_and_a_table_narrow_it(url: str, tmp_path: Path) -> None:
    result = run(url, tmp_path, "--since", "24h", "--what", "spans")
    assert result.exit_code == 0
    (file,) = tmp_path.iterdir()
    assert pq.read_metadata(file).num_rows == 200


def test_many_row_groups_arrive_as_they_are_made(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_FIRST_ROWS", 1)
    monkeypatch.setattr(export, "_GROUP_BYTES", 1)
    assert run(url, tmp_path, "--since", "7d", "--what", "events").exit_code == 0
    (file,) = tmp_path.iterdir()
    assert pq.ParquetFile(file).num_row_groups == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--what", "users"], "spans, scores, events"),
        (["--since", "yesterday"], "ISO 8601"),
        (["--since", "7d", "--until", "2020-01-01"], ""),
    ],
)
def test_what_can_not_be_exported_says_so(
    url: str, tmp_path: Path, words: list[str], expected: str
) -> None:
    result = run(url, tmp_path, *words)
    assert expected in result.stderr
    assert result.exit_code == (2 if expected else 0)
    assert list(tmp_path.iterdir()) == []


def test_nobody_exports_without_the_token(url: str, tmp_path: Path) -> None:
    result = run(url, tmp_path, token="another")
    assert result.exit_code == 2
    assert "401" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_stops_in_the_middle_leaves_no_half_file(
    url: str, store: ClickHouseStore, tmp_path: Path
) -> None:
    assert run(url, tmp_path, "--what", "events").exit_code == 0
    (before,) = tmp_path.iterdir()
    assert isinstance(store, Stumbling)
    store.breaks = True
    try:
        result = run(url, tmp_path, "--what", "events")
    finally:
        store.breaks = False
    assert result.exit_code == 2
    assert "in the middle" in result.stderr
    assert list(tmp_path.iterdir()) == [before]


def test_a_folder_that_can_not_be_written_says_so(url: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    result = run(url, tmp_path / "taken" / "inside")
    assert result.exit_code == 2
    assert "can't be made" in result.stderr
