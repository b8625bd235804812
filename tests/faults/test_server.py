"""The whole server on a full disk, without its store, and with a damaged log."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from llmobs.analyzer.log import SegmentReader, SegmentWriter
from llmobs.analyzer.pipeline import Ingest
from llmobs.analyzer.publish import Metrics
from llmobs.analyzer.store import open_store
from llmobs.measures.cost import PriceBook
from llmobs.server import Server
from tests.faults.accounts import account, account_of
from tests.faults.kills import quick_settings, wait_ready, wait_stored
from tests.faults.load import Load
from tests.faults.outage import store_down
from tests.otlp import chat_span, traces_request

DISK_BYTES = 96 << 20


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    size = f"size={DISK_BYTES}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a small disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up_makes_senders_wait_and_all_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        with Server(quick_settings(disk)) as server:
            server.wait_ready()
            page = f"http://127.0.0.1:{server.settings.web_port}/readyz"
            with Load(server.settings.http_port) as load:
                load.wait_acknowledged(time.monotonic())
                for victims in ((), ("receiver", "engine")):
                    _fill_until_refused(disk, load)
                    for name in victims:
                        os.kill(server.pids()[name], signal.SIGKILL)
                        time.sleep(1.0)
                    (disk / "filler").unlink()
                    load.wait_acknowledged(time.monotonic())
                load.stop()
                wait_stored(disk)
                wait_ready(page, time.monotonic())
        found = account_of(disk / "store", load.acknowledged)
    assert found.n_acknowledged > 100
    assert found.is_exact, found


def _fill_until_refused(disk: Path, load: Load) -> None:
    """Leave no room on the disk until senders have been asked to wait a few times."""
    n_refused, deadline = load.n_refused, time.monotonic() + 60
    while load.n_refused < n_refused + 10:
        assert time.monotonic() < deadline, "nobody was asked to wait"
        with (disk / "filler").open("ab", buffering=0) as filler, suppress(OSError):
            while (room := os.statvfs(disk)).f_bavail:
                filler.write(bytes(min(room.f_bavail * room.f_frsize, 1 << 20)))
        time.sleep(0.05)


@pytest.mark.slow
def test_a_store_that_is_away_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    found = store_down(tmp_path / "down", 3.0)
    assert found.n_acknowledged_meanwhile > 100
    assert found.n_refused == 0
    assert found.account.is_exact, found


def test_a_flipped_bit_costs_one_request_its_neighbours_are_stored_and_it_is_counted(
    tmp_path: Path,
) -> None:
    chance = random.Random(9)
    log = tmp_path / "log"
    writer = SegmentWriter(log, segment_bytes=20_000, segment_age_s=60)
    ids: list[set[str]] = []
    for n in range(30):
        spans = [chat_span(chance, session=f"s-{n}") for _ in range(4)]
        ids.append({span.span_id.hex() for span in spans})
        writer.append("traces", traces_request(spans), lambda error: None)
    writer.close()
    damaged = sorted(log.glob("*.seg"))[:3]
    for path in damaged:
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)

    reader = SegmentReader(log, tmp_path / "aside")
    store = open_store(f"chdb://{tmp_path / 'store'}")
    ingest = Ingest(reader, store, PriceBook(), Metrics())
    while reader.sealed():
        ingest.step()
    found = account(
        lambda sql: [list(row.values()) for row in store._clients.ask(sql)], set().union(*ids)
    )
    store.close()
    assert found.n_lost == 4 * len(damaged)  # those of one request a segment, and no others
    assert (found.n_doubled, found.n_unasked, found.n_miscounted) == (0, 0, 0)
    assert reader.stats()["n_corrupt"] == len(damaged) > 0
