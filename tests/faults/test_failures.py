"""Every step fails once, the clock jumps, segments come back or are damaged: all goes on."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from tests.faults.life import Life, live

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.faults.preload"])

DAY_S = 86_400


def run(life: Life) -> None:
    process = FORKS.Process(target=live, args=(life,))
    process.start()
    process.join(120)
    assert process.exitcode == 0


# Not the queue's, the sender's and the channel's own steps.
FAILING = "^(log: (?!queue|answer)|mending: st|working: st)"


@pytest.mark.slow
@pytest.mark.parametrize("role", ["all", "worker"])
def test_a_failure_of_every_step_once_loses_and_doubles_nothing(tmp_path: Path, role: str) -> None:
    data = tmp_path / "data"
    run(Life(data, 0, frozenset(), FAILING, role, fails=True))
    run(Life(data, 1, frozenset(), FAILING, role, fails=True, erases=role == "all"))
    run(Life(data, 2, role=role))
    steps = (data / "steps").read_text().splitlines()
    assert "working: store: delete from spans" in steps
    assert "working: inbox: send" in steps


@pytest.mark.slow
def test_a_clock_that_jumps_loses_and_doubles_nothing_and_people_are_told_when_it_is_right_again(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    to_1970, to_2100 = -int(time.time()), (2100 - 2026) * 365 * DAY_S
    for number, jumps_s in enumerate(
        [(0, DAY_S), (0, -DAY_S), (0, to_1970), (0, to_2100), (to_2100, to_1970, DAY_S, -DAY_S)]
    ):
        run(Life(data, number, jumps_s=(*jumps_s, 0)))
    told_before = (data / "inbox").read_text().splitlines()
    run(Life(data, 9))
    told = (data / "inbox").read_text().splitlines()
    assert len(told) > len(told_before)
