"""kill -9 before every step of the loops: whoever comes next finds all of it exact.

A life takes over what the last one left, checks everything, works, and dies before the first
step that none has died at; in what it left behind the next one may meet steps of mending that
were never needed before, and dies there. This goes on until a life meets nothing new.
"""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path

import pytest

from tests.faults.life import Life, live

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.faults.preload"])

# What must have been tried, or this proves less than it says. Each is died at in the work
# itself and, where its name has a phase, again while another death is mended.
STORED = {
    "insert spans",
    "insert spans, a later block",
    "insert events",
    "insert metric_points",
    "insert segments",
}
REBUILT = {
    "insert stale_minutes",
    "delete from minutes",
    "insert into minutes",
    "delete from stale_minutes",
}
LOGGED = {
    "log: take a number",
    "log: sync names",
    "log: write",
    "log: fdatasync",
    "log: answer",
    "log: save hashes",
    "log: rename .open",
    "log: read",
    "log: remove",
}


def die_at_every_step(
    data: Path, *, role: str = "all", among: str | None = None, erases: bool = False
) -> list[str]:
    """Run lives until one lives; return where the others died."""
    died: list[str] = []
    while True:
        life = Life(data, len(died), frozenset(died), among, role, erases=erases)
        process = FORKS.Process(target=live, args=(life,))
        process.start()
        process.join(60)
        if process.exitcode == 0:
            return died
        last = (data / "steps").read_text().splitlines()[-1]
        assert process.exitcode == -signal.SIGKILL, f"after {died}"
        died.append(last)
        (data / "deaths").write_text("".join(f"{step}\n" for step in died))


@pytest.mark.slow
def test_death_before_any_step_loses_and_doubles_nothing(tmp_path: Path) -> None:
    died = set(die_at_every_step(tmp_path / "data", among="^(log|opening|mending|working)"))
    assert died >= LOGGED
    for phase in ("mending", "working"):
        assert died >= {f"{phase}: store: {step}" for step in STORED}
    assert died >= {f"opening: store: {step}" for step in REBUILT}
    assert died >= {f"mending: store: {step}" for step in REBUILT | {"delete from spans"}}
    assert any(step.startswith("opening: store: create table") for step in died)
    assert "opening: store: delete from scores" in died
    assert "working: store: insert scores" in died
    for step in ("state: commit", "state: announce", "inbox: send", "state: delivered"):
        assert f"working: {step}" in died


@pytest.mark.slow
def test_death_of_a_worker_loses_and_doubles_no_score(tmp_path: Path) -> None:
    died = die_at_every_step(tmp_path / "data", role="worker", among="score|state: commit")
    assert "working: store: insert scored" in died
    assert "working: store: insert scores" in died


@pytest.mark.slow
def test_death_while_a_session_is_forgotten_leaves_nothing_of_it_and_no_wrong_count(
    tmp_path: Path,
) -> None:
    erasing = "working: (state: forget|store: insert erasures|store: delete from spans)"
    died = die_at_every_step(tmp_path / "data", among=erasing, erases=True)
    assert died == [
        "working: store: insert erasures",
        "working: state: forget",
        "working: store: delete from spans",
    ]
