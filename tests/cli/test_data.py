"""`llmobs replay`, against the real receiver."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from google.protobuf import json_format

from llmobs.analyzer.receive import Receiver
from llmobs.cli.data import Sender, read_recorded, replay
from llmobs.errors import BadRequestError, ConfigurationError, LlmobsError, OverloadedError
from llmobs.records import Signal
from tests.analyzer.receive.serving import MemorySink, check, export


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


def run(endpoint: str, *words: object) -> Result:
    return CliRunner().invoke(replay, ["--endpoint", endpoint, *map(str, words)])


@pytest.mark.parametrize("write", [protobuf, json_lines])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
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
    ],
    ids=["no JSON", "other JSON", "other format", "cut off", "cut in a length", "cut gzip"],
)
def test_a_file_that_holds_something_else_says_so(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(BadRequestError, match="file"):
        list(read_recorded(file, "traces"))
