"""`llmobs import-otel`, from the exporter's tables to the real receiver."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import clickhouse_connect
import pytest
from click.testing import CliRunner, Result

from llmobs.analyzer.receive import Receiver
from llmobs.cli.import_otel import import_otel
from llmobs.errors import LlmobsError, OverloadedError
from llmobs.records import Signal
from tests.analyzer.receive.serving import MemorySink, check, export, n_items
from tests.analyzer.store.otel_exporter import create_tables, write_spans
from tests.analyzer.store.test_importer import RESOURCE, some_spans
from tests.clickhouse_http import served

N_SPANS = 60
SINCE = ("--since", "2025-11-24T00:00Z", "--until", "2025-11-25T00:00Z")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("server") / "store") as url:
        client = clickhouse_connect.get_client(host="127.0.0.1", port=urlsplit(url).port or 0)
        create_tables(client)
        write_spans(client, RESOURCE, some_spans(N_SPANS, step_ns=60 * 10**9))
        client.close()
        yield url


class FullAfter(MemorySink):
    """A sink that takes some requests and has no room for more."""

    room = 3

    def append(
        self, signal: Signal, request: bytes, done: Callable[[Exception | None], None]
    ) -> None:
        full = len(self.kept) >= self.room
        self.answer = OverloadedError("full", retry_after_s=1) if full else None
        super().append(signal, request, done)


def run(source: str, sink: MemorySink, *words: object) -> Result:
    with Receiver(sink, check, http_port=0, grpc_port=0) as receiver:
        to = f"http://127.0.0.1:{receiver.http_port}"
        return CliRunner().invoke(import_otel, [source, *SINCE, "--to", to, *map(str, words)])


def names(sink: MemorySink) -> list[str]:
    return [
        span.span_id.hex()
        for _, body in sink.kept
        for of_resource in export("traces").FromString(body).resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_import_sends_everything_once_and_leaves_no_file(source: str, folder: Path) -> None:
    sink = MemorySink()
    result = run(source, sink, "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["n_spans"], summary["n_events"], summary["n_refused"]) == (N_SPANS, 0, 0)
    assert len(set(names(sink))) == len(names(sink)) == N_SPANS
    assert sum(n_items(export("traces").FromString(body)) for _, body in sink.kept) == N_SPANS
    assert list(folder.iterdir()) == []


def test_an_interrupted_import_goes_on_where_it_was(
    source: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmobs.analyzer.store.importer._SLICE_ROWS", 8)
    monkeypatch.setattr("llmobs.analyzer.store.importer._REQUEST_ROWS", 4)
    sink, runs = FullAfter(), 0
    with Receiver(sink, check, http_port=0, grpc_port=0) as receiver:
        to = f"http://127.0.0.1:{receiver.http_port}"
        words = [source, *SINCE, "--to", to, "--patience", "0", "--resume"]
        while isinstance(CliRunner().invoke(import_otel, words).exception, LlmobsError):
            assert "password" not in (folder / ".llmobs-import.json").read_text()
            sink.room += 6
            runs += 1
    assert runs >= 2
    assert len(set(names(sink))) == N_SPANS
    assert len(names(sink)) <= N_SPANS + runs * 8
    assert list(folder.iterdir()) == []


def test_a_journal_of_another_import_is_not_followed(source: str, folder: Path) -> None:
    (folder / ".llmobs-import.json").write_text(
        json.dumps({"source": "elsewhere", "since_ns": 2**62, "until_ns": 2**62 + 1})
    )
    sink = MemorySink()
    assert run(source, sink, "--resume").exit_code == 0
    assert len(names(sink)) == N_SPANS
    (folder / ".llmobs-import.json").write_text("{")
    assert "remove it" in str(run(source, sink, "--resume").exception)


def test_a_refused_request_is_told(source: str) -> None:
    result = run(source, MemorySink(answer=ValueError("broken")))
    assert result.exit_code == 1
    assert "0 spans and 0 events sent" in result.stderr
    assert f"{N_SPANS} refused: 500" in result.stderr
