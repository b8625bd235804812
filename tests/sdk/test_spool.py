"""What waits on disk outlives an outage, a kill and a restart, and is bounded."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import llmobs
from llmobs.sdk.spool import Spool
from tests.ports import free_ports
from tests.sdk.conftest import Start
from tests.sdk.receiver import Receiver

PREAMBLE = """
import os, sys, time, warnings
import llmobs
warnings.simplefilter("ignore")
llmobs.init("child", endpoint=os.environ["SINK"], capture_content="full", flush_timeout_s=0.5,
            export_interval_s=0.02)
@llmobs.observe(kind="tool")
def work(n):
    return n
def until(condition):
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
"""


@llmobs.observe(kind="tool", name="work")
def work(number: int) -> int:
    return number


@pytest.fixture(autouse=True)
def short_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the exporters give up at once, rather than try for ten seconds by themselves."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")


def run(url: str, folder: Path, body: str) -> int:
    """Run a program with a spool; "kill me" as its word is its end."""
    with subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(body)],
        env={**os.environ, "SINK": url, "LLMOBS_SPOOL": str(folder), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("kill me"):
                child.kill()
        return child.wait(30)


def nowhere() -> str:
    return f"http://127.0.0.1:{free_ports(1)[0]}"


def numbers(otlp: Receiver) -> list[int]:
    return [span.attributes["llmobs.sequence"] for span in otlp.spans]


def until(is_so: Callable[[], bool], timeout_s: float = 10.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not is_so() and time.monotonic() < end_s:
        time.sleep(0.01)
    assert is_so()


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.otlp"))


def test_what_a_killed_process_had_on_disk_is_sent_in_order_by_the_next(
    otlp: Receiver, tmp_path: Path
) -> None:
    body = """
    for n in range(300):
        work(n)
        if n % 50 == 49:
            until(lambda: not llmobs.status().waiting and llmobs.status().spooled == n + 1)
    print("kill me")
    time.sleep(60)
    """
    assert run(nowhere(), tmp_path, body) == -signal.SIGKILL
    assert len(files(tmp_path)) >= 6
    # The next one records nothing itself.
    assert run(otlp.url, tmp_path, "llmobs.flush(10)") == 0
    assert numbers(otlp) == list(range(300))
    assert list(tmp_path.iterdir()) == []


def test_an_end_while_the_receiver_is_away_leaves_all_on_disk(
    otlp: Receiver, tmp_path: Path
) -> None:
    assert run(nowhere(), tmp_path, "for n in range(700): work(n)") == 0
    assert run(otlp.url, tmp_path, "work(0)\nllmobs.flush(10)") == 0
    dead, living = (
        [s.attributes["llmobs.sequence"] for s in otlp.spans if s.attributes[key] == process]
        for key, process in (
            ("llmobs.process.id", otlp.spans[0].attributes["llmobs.process.id"]),
            ("llmobs.process.id", otlp.spans[-1].attributes["llmobs.process.id"]),
        )
    )
    assert dead == list(range(700))
    assert living == [0]


def test_a_forked_child_has_a_folder_of_its_own_and_leaves_its_parents_alone(
    otlp: Receiver, tmp_path: Path
) -> None:
    body = """
    work(0)
    until(lambda: llmobs.status().spooled == 1)
    pid = os.fork()
    if pid == 0:
        work(0)
        until(lambda: llmobs.status().spooled == 1)
        os._exit(llmobs.status().spooled)  # no end of ours runs
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    """
    assert run(nowhere(), tmp_path, body) == 0
    assert len({path.parent for path in files(tmp_path)}) == 2
    assert run(otlp.url, tmp_path, "llmobs.flush(10)") == 0
    assert len({span.attributes["llmobs.process.id"] for span in otlp.spans}) == 2


def test_an_outage_longer_than_memory_lasts_loses_nothing(start: Start, tmp_path: Path) -> None:
    otlp = start(
        spool=tmp_path, queue_capacity=100, batch_size=50, export_interval_s=0.01, retry_s=0.1
    )
    otlp.mode = 503
    for number in range(1_000):
        work(number)
        if number % 40 == 39:
            until(lambda: llmobs.status().waiting == 0)
    assert llmobs.status().dropped == {}
    assert otlp.spans == []
    otlp.mode = "ok"
    otlp.wait_for_spans(1_000)
    assert numbers(otlp) == list(range(1_000))
    until(lambda: llmobs.status().exported == 1_000)
    assert llmobs.status().spooled == 0
    assert files(tmp_path) == []


def test_where_the_disk_space_is_used_up_the_oldest_go_and_are_counted(
    start: Start, tmp_path: Path
) -> None:
    otlp = start(spool=tmp_path, spool_max_bytes=50_000, export_interval_s=0.01)
    otlp.mode = 503
    work(0)
    assert otlp.arrived.wait(5)
    for number in range(1, 100):
        work(number)
        until(lambda: llmobs.status().waiting == 0)
    assert sum(path.stat().st_size for path in files(tmp_path)) < 50_000
    status = llmobs.status()
    assert status.dropped == {"spool_full": 100 - status.spooled}
    assert 5 < status.spooled < 30
    otlp.mode = "ok"
    until(lambda: llmobs.status().spooled == 0)
    arrived = numbers(otlp)
    # The one that was on its way could not go; the others are the newest.
    assert sorted(arrived)[-status.spooled + 1 :] == list(range(101 - status.spooled, 100))
    assert len(arrived) == status.spooled


def test_what_the_receiver_refuses_is_counted_and_holds_up_no_others(
    start: Start, tmp_path: Path
) -> None:
    otlp = start(spool=tmp_path, export_interval_s=0.01)
    otlp.mode = 400
    work(0)
    until(lambda: llmobs.status().dropped == {"refused": 1})
    otlp.mode = "ok"
    work(1)
    assert llmobs.flush(5)
    assert numbers(otlp) == [1]
    assert files(tmp_path) == []


def test_feedback_waits_on_disk_too(start: Start, tmp_path: Path) -> None:
    otlp = start(spool=tmp_path, export_interval_s=0.01)
    otlp.mode = 503
    llmobs.feedback(1, session_id="s")
    until(lambda: llmobs.status().spooled == 1)
    assert [path.name for path in files(tmp_path)] in ([], ["000000000000-logs-1.otlp"])
    otlp.mode = "ok"
    until(lambda: llmobs.status().events_exported == 1)
    assert [event.name for event in otlp.events] == ["gen_ai.evaluation.result"]


def test_a_folder_that_cannot_be_written_is_gone_around(start: Start, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    n_faults = llmobs.status().faults
    otlp = start(spool=blocked / "spool")
    work(0)
    assert llmobs.flush(5)
    assert numbers(otlp) == [0]
    assert llmobs.status().faults == n_faults


def test_a_folder_that_is_cleaned_up_meanwhile_costs_what_lay_in_it_alone(
    start: Start, tmp_path: Path
) -> None:
    otlp = start(spool=tmp_path, export_interval_s=0.01)
    otlp.mode = 503
    for number in range(3):
        work(number)
        until(lambda: llmobs.status().spooled == number + 1)  # noqa: B023
    for path in [*tmp_path.glob("*/*"), *tmp_path.iterdir()]:
        path.rmdir() if path.is_dir() else path.unlink()
    otlp.mode = "ok"
    work(3)
    until(lambda: llmobs.status().spooled == 0)
    until(lambda: 3 in numbers(otlp))
    status = llmobs.status()
    assert status.exported + status.dropped.get("spool_unreadable", 0) == 4


def test_a_spool_is_not_used_over_grpc_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    llmobs.init("shop", endpoint="127.0.0.1:1", protocol="grpc", spool=tmp_path)
    assert "no spool" in caplog.text
    assert llmobs.status().spooled == 0


# --- the folder itself


def spool(folder: Path, max_bytes: int = 100_000) -> tuple[Spool, list[int]]:
    dropped: list[int] = []
    return Spool(str(folder), max_bytes, dropped.append), dropped


def drained(kept: Spool) -> list[bytes]:
    requests = []
    while (entry := kept.take()) is not None:
        requests.append(entry.path.read_bytes())
        kept.remove(entry)
    return requests


def test_nobody_takes_over_what_a_living_process_has(tmp_path: Path) -> None:
    living, _ = spool(tmp_path)
    assert living.add("traces", b"a", 1)
    other, _ = spool(tmp_path)
    other.adopt()
    assert drained(other) == []
    living.close()
    other.adopt()
    assert drained(other) == [b"a"]


def test_one_alone_of_many_takes_over_what_a_dead_one_has_left(tmp_path: Path) -> None:
    dead, _ = spool(tmp_path)
    assert dead.add("logs", b"a", 1)
    dead.close()
    heirs = [spool(tmp_path)[0] for _ in range(3)]
    for heir in heirs:
        heir.adopt()
    assert [drained(heir) for heir in heirs] == [[b"a"], [], []]
    assert list(tmp_path.iterdir()) == []


def test_leftovers_go_before_what_is_new_the_oldest_process_first(tmp_path: Path) -> None:
    for name in (b"a", b"b"):
        dead, _ = spool(tmp_path)
        assert dead.add("traces", name + b"1", 1)
        assert dead.add("traces", name + b"2", 1)
        time.sleep(0.02)  # folders are told apart by their time
        dead.close()
    heir, _ = spool(tmp_path)
    assert heir.add("traces", b"new", 1)
    heir.adopt()
    assert drained(heir) == [b"a1", b"a2", b"b1", b"b2", b"new"]


def test_what_was_put_back_is_the_oldest_still(tmp_path: Path) -> None:
    kept, _ = spool(tmp_path)
    assert kept.add("traces", b"1", 1)
    assert kept.add("traces", b"2", 1)
    entry = kept.take()
    assert entry is not None
    kept.put_back(entry)
    assert drained(kept) == [b"1", b"2"]


def test_half_a_file_is_no_request(tmp_path: Path) -> None:
    dead, _ = spool(tmp_path)
    assert dead.add("traces", b"whole", 1)
    (folder,) = tmp_path.iterdir()
    (folder / "000000000001-traces-1.part").write_bytes(b"ha")
    dead.close()
    heir, _ = spool(tmp_path)
    heir.adopt()
    assert drained(heir) == [b"whole"]
    assert list(tmp_path.iterdir()) == []


def test_the_bound_holds_for_all_processes_together(tmp_path: Path) -> None:
    first, _ = spool(tmp_path)
    assert first.add("traces", bytes(60_000), 7)
    second, dropped = spool(tmp_path)
    second.adopt()
    assert second.add("traces", bytes(20_000), 1)
    assert second.add("traces", bytes(20_000), 2)
    assert dropped == [1]  # its own oldest, not the other's
    assert second.add("traces", bytes(60_000), 3)
    assert dropped == [1, 2, 3]
    assert sum(path.stat().st_size for path in files(tmp_path)) == 60_000


def test_only_its_owner_may_read_what_people_wrote(tmp_path: Path) -> None:
    kept, _ = spool(tmp_path / "new")
    assert kept.add("traces", b"secret", 1)
    (file,) = files(tmp_path / "new")
    assert [path.stat().st_mode & 0o077 for path in (file, file.parent)] == [0, 0]


def test_a_shutdown_leaves_the_folder_to_the_next_at_once(start: Start, tmp_path: Path) -> None:
    otlp = start(spool=tmp_path, export_interval_s=0.01)
    otlp.mode = 503
    work(0)
    until(lambda: llmobs.status().spooled == 1)
    assert not llmobs.shutdown(0.5)
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("llmobs-export")])
    otlp.mode = "ok"
    llmobs.init("shop", endpoint=otlp.url, spool=tmp_path)
    assert llmobs.flush(5)
    otlp.wait_for_spans(1)
    assert numbers(otlp) == [0]


def test_folders_of_others_beside_the_processes_own_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "elsewhere").mkdir()
    theirs = [tmp_path / "cache" / "lock", tmp_path / "cache" / "film.part"]
    theirs.append(tmp_path / "elsewhere" / "lock")
    for path in theirs:
        path.touch()
    (tmp_path / "0123abcd").symlink_to(tmp_path / "elsewhere")
    kept, _ = spool(tmp_path)
    assert kept.add("traces", b"a", 1)
    kept.adopt()
    kept.close()
    assert [path.exists() for path in theirs] == [True, True, True]
    assert (tmp_path / "uploads").is_dir()


def test_where_no_lock_can_be_had_the_request_stays_with_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)  # as on a network's file system
    kept, dropped = spool(tmp_path)
    assert not kept.add("traces", b"a", 1)
    assert dropped == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_deleted_is_counted_as_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    kept, dropped = spool(tmp_path, 10_000)
    assert kept.add("traces", bytes(5_000), 3)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert kept.add("traces", bytes(5_000), 1)  # for which the other goes
    assert dropped == [3]
    assert kept.n_items == 1
    assert drained(kept) == [bytes(5_000)]
    assert kept.n_items == 0
