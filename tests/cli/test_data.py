"""`llmobs replay`, against the real receiver."""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from google.protobuf import json_format

from llmobs.analyzer.receive import Receiver
from llmobs.cli.data import replay
from llmobs.cli.recorded import read_recorded
from llmobs.cli.sender import Sender
from llmobs.errors import BadRequestError, ConfigurationError, LlmobsError, OverloadedError
from llmobs.records import SPAN_SCHEMA, Signal
from tests.analyzer.receive.serving import MemorySink, check, export, n_items
from tests.analyzer.store.rows import generated


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def endpoint(sink: MemorySink) -> Iterator[str]:
    with Receiver(sink, check, http_port=0, grpc_port=0) as receiver:
        yield f"http://127.0.0.1:{receiver.http_port}"


def requests(n: int, signal: Signal = "traces") -> list[Any]:
    return [export(signal, f"request {i}", n=2) for i in range(n)]


def protobuf(messages: list[Any]) -> bytes:
    packed = [message.SerializeToString() for message in messages]
    return b"".join(len(body).to_bytes(4, "big") + body for body in packed)


def json_lines(messages: list[Any]) -> bytes:
    return b"".join(
        json_format.MessageToJson(message, indent=None).encode() + b"\n" for message in messages
    )


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return bytes(sink.getvalue())


def run(endpoint: str, *words: object) -> Result:
    return CliRunner().invoke(replay, ["--endpoint", endpoint, *map(str, words)])


@pytest.mark.parametrize("write", [protobuf, json_lines])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
def test_every_request_of_a_file_arrives_as_it_was_recorded(
    sink: MemorySink,
    endpoint: str,
    tmp_path: Path,
    write: Callable[[list[Any]], bytes],
    pack: Callable[[bytes], bytes],
) -> None:
    recorded = requests(30)
    file = tmp_path / "traces"
    file.write_bytes(pack(write(recorded)))
    result = run(endpoint, file, "--json")
    assert result.exit_code == 0
    assert sorted(sink.kept) == sorted(("traces", r.SerializeToString()) for r in recorded)
    summary = json.loads(result.stdout)
    assert (summary["n_requests"], summary["n_accepted"], summary["n_refused"]) == (30, 30, 0)
    assert summary["n_items"] == 60


def test_json_says_its_signal_itself_and_protobuf_is_told(
    sink: MemorySink, endpoint: str, tmp_path: Path
) -> None:
    lines, messages = tmp_path / "any.json", tmp_path / "logs"
    lines.write_bytes(json_lines(requests(1, "metrics") + requests(1, "traces")))
    messages.write_bytes(protobuf(requests(1, "logs")))
    assert run(endpoint, lines, messages, "--signal", "logs").exit_code == 0
    assert sorted(signal for signal, _ in sink.kept) == ["logs", "metrics", "traces"]


def test_a_server_that_is_full_is_waited_for_and_nothing_is_left_out(
    sink: MemorySink, endpoint: str, tmp_path: Path
) -> None:
    file = tmp_path / "traces"
    file.write_bytes(protobuf(requests(5)))
    sink.answer = OverloadedError("the log is full", retry_after_s=1)

    def empty() -> None:
        time.sleep(0.3)
        sink.answer = None

    thread = threading.Thread(target=empty)
    thread.start()
    result = run(endpoint, file, "--json")
    thread.join()
    assert result.exit_code == 0
    assert len(sink.kept) == 5
    assert json.loads(result.stdout)["n_retries"] >= 1


def test_a_server_that_stays_full_ends_the_patience(
    sink: MemorySink, endpoint: str, tmp_path: Path
) -> None:
    file = tmp_path / "traces"
    file.write_bytes(protobuf(requests(50)))
    sink.answer = OverloadedError("the log is full", retry_after_s=1)
    result = run(endpoint, file, "--patience", 0)
    assert isinstance(result.exception, LlmobsError)
    assert "did not take" in str(result.exception)


def test_a_refused_request_is_told_and_the_others_are_sent(
    sink: MemorySink, endpoint: str, tmp_path: Path
) -> None:
    good = json_lines(requests(2))
    file = tmp_path / "traces.json"
    file.write_bytes(good + b'{"resourceSpans": [{"scopeSpans": 7}]}\n')
    result = run(endpoint, file, "--json")
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert (summary["n_accepted"], summary["n_refused"]) == (2, 1)
    assert "not an export request" in next(iter(summary["refused"]))
    assert len(sink.kept) == 2


def test_nothing_is_read_when_no_server_answers(tmp_path: Path) -> None:
    file = tmp_path / "traces"
    file.write_bytes(protobuf(requests(1)))
    result = run("http://127.0.0.1:9", file)
    assert isinstance(result.exception, LlmobsError)
    assert "no server" in str(result.exception)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4318", "ftp://server", ""])
def test_an_endpoint_must_be_an_address(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="no address"):
        Sender(endpoint)


@pytest.mark.parametrize(
    "content",
    [
        b'{"resourceSpans": []}\nnonsense\n',
        b'{"spans": []}\n',
        b"PAR1 something else altogether",
        protobuf(requests(2))[:-1],
        b"\0\0",
        gzip.compress(protobuf(requests(9)))[:-9],
        zstd(protobuf(requests(9)))[:-9],
        b"\0\0\0\x06\x28\xb5\x2f\xfd\0\0",
    ],
    ids=[
        "no JSON",
        "other JSON",
        "other format",
        "cut off",
        "cut in a length",
        "cut gzip",
        "cut zstd",
        "broken message",
    ],
)
def test_a_file_that_holds_something_else_says_so(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(BadRequestError, match="file"):
        list(read_recorded(file, "traces"))


@pytest.mark.parametrize("is_json", [False, True])
def test_messages_that_the_exporter_packed_one_by_one_are_unpacked(
    tmp_path: Path, is_json: bool
) -> None:
    """As the Collector writes with `compression: zstd`."""
    recorded = requests(3)
    bodies = [
        json_format.MessageToJson(r).encode() if is_json else r.SerializeToString()
        for r in recorded
    ]
    file = tmp_path / "traces"
    file.write_bytes(b"".join(len(z).to_bytes(4, "big") + z for z in map(zstd, bodies)))
    read = list(read_recorded(file, "traces"))
    assert [request.body for request in read] == bodies
    assert {request.content_type for request in read} == {
        "application/json" if is_json else "application/x-protobuf"
    }
    assert read[-1].end == read[-1].n_read == file.stat().st_size


@pytest.mark.parametrize("write", [protobuf, json_lines])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
def test_reading_goes_on_behind_any_request(
    tmp_path: Path, write: Callable[[list[Any]], bytes], pack: Callable[[bytes], bytes]
) -> None:
    file = tmp_path / "traces"
    file.write_bytes(pack(write(requests(6))))
    whole = list(read_recorded(file, "traces"))
    for done, request in enumerate(whole, start=1):
        rest = list(read_recorded(file, "traces", request.end))
        assert [r.body for r in rest] == [r.body for r in whole[done:]]


def write_folder(folder: Path) -> set[str]:
    """Fill a folder with files of all kinds; return the names of the spans in them."""
    (folder / "inner").mkdir(parents=True)
    recorded = [[export("traces", f"file {n} request {i}") for i in range(20)] for n in range(4)]
    (folder / "a.json").write_bytes(json_lines(recorded[0]))
    (folder / "b.json.gz").write_bytes(gzip.compress(json_lines(recorded[1])))
    (folder / "inner" / "c").write_bytes(protobuf(recorded[2]))
    (folder / "inner" / "d.zst").write_bytes(zstd(protobuf(recorded[3])))
    table = generated(1, 1200).table.cast(SPAN_SCHEMA)
    pq.write_table(table, folder / "spans-2025-11-24.parquet", row_group_size=600)
    pq.write_table(pa.table({"a": [1]}), folder / "scores-2025-11-24.parquet")  # made anew
    (folder / ".hidden").write_text("no telemetry")
    return {f"file {n} request {i}" for n in range(4) for i in range(20)}


def sent(sink: MemorySink) -> tuple[set[str], int]:
    """Return the names of the spans that a sink holds, and how many spans have none."""
    names, n_nameless = set(), 0
    for _, body in sink.kept:
        spans = [
            span
            for of_resource in export("traces").FromString(body).resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]
        names |= {span.name for span in spans if span.name}
        n_nameless += sum(not span.name for span in spans)
    return names, n_nameless


def test_a_folder_is_sent_with_all_that_is_in_it(
    sink: MemorySink, endpoint: str, tmp_path: Path
) -> None:
    names = write_folder(tmp_path)
    before = set(tmp_path.rglob("*"))
    result = run(endpoint, tmp_path, "--json")
    assert result.exit_code == 0
    assert sent(sink) == (names, 1200)
    assert json.loads(result.stdout)["n_files"] == 5
    assert set(tmp_path.rglob("*")) == before  # nothing is left beside the files


class FullAfter(MemorySink):
    """A sink that takes some requests and has no room for more."""

    room = 30

    def append(
        self, signal: Signal, request: bytes, done: Callable[[Exception | None], None]
    ) -> None:
        self.answer = (
            OverloadedError("full", retry_after_s=1) if len(self.kept) >= self.room else None
        )
        super().append(signal, request, done)


def test_an_interrupted_replay_of_a_folder_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    names = write_folder(folder)
    sink = FullAfter()
    with Receiver(sink, check, http_port=0, grpc_port=0) as receiver:
        endpoint = f"http://127.0.0.1:{receiver.http_port}"
        runs = 0
        while run(endpoint, folder, "--patience", 0, "--resume").exit_code:
            sink.room += 30
            runs += 1
    assert runs == 2
    assert sent(sink)[0] == names
    n_sent = sum(n_items(export("traces").FromString(body)) for _, body in sink.kept)
    # What was in flight is sent again, and no more than that.
    assert len(names) + 1200 <= n_sent <= len(names) + 1200 + runs * 9 * 512
    assert len(sink.kept) <= 80 + 3 + runs * 9


def test_a_file_that_was_replaced_by_a_shorter_one_is_sent_from_its_begin(
    sink: MemorySink, endpoint: str, tmp_path: Path
) -> None:
    file = tmp_path / "traces"
    file.write_bytes(protobuf(requests(50)) + b"\0\0\0\x01")
    assert isinstance(run(endpoint, file).exception, BadRequestError)
    sink.kept.clear()
    file.write_bytes(protobuf(requests(2)))
    assert run(endpoint, file, "--resume").exit_code == 0
    assert len(sink.kept) == 2


def test_a_journal_that_can_not_be_read_says_so(endpoint: str, tmp_path: Path) -> None:
    file = tmp_path / "traces"
    file.write_bytes(protobuf(requests(1)))
    (tmp_path / ".llmobs-replay.json").write_text("nonsense")
    result = run(endpoint, file, "--resume")
    assert isinstance(result.exception, ConfigurationError)
    assert "remove it" in str(result.exception)


def test_nothing_is_sent_faster_than_asked_for(
    sink: MemorySink, endpoint: str, tmp_path: Path
) -> None:
    file = tmp_path / "traces"
    file.write_bytes(protobuf(requests(6)))
    summary = json.loads(run(endpoint, file, "--rate", 20, "--json").stdout)
    assert summary["n_items"] == 12
    assert 0.5 <= summary["duration_s"] < 5


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """Serve an OTLP endpoint that answers every request with a body; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


PARTIAL_JSON = b'{"partialSuccess": {"rejectedSpans": "1", "errorMessage": "too old"}}'
PARTIAL_PROTOBUF = b"\x0a\x0b\x08\x01\x12\x07too old"


@pytest.mark.parametrize(
    ("write", "body"), [(json_lines, PARTIAL_JSON), (protobuf, PARTIAL_PROTOBUF)]
)
def test_spans_that_another_server_leaves_out_are_told(
    tmp_path: Path, write: Callable[[list[Any]], bytes], body: bytes
) -> None:
    file = tmp_path / "traces"
    file.write_bytes(write(requests(3)))
    with answering(body) as endpoint:
        result = run(endpoint, file, "--json")
        words = run(endpoint, file)
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert (summary["n_accepted"], summary["n_items"], summary["n_rejected_items"]) == (3, 3, 3)
    assert summary["rejected"] == {"too old": 3}
    assert re.search(r"3 spans or records left out: too old", words.stderr)
