"""Kill and starve the real server, and count what is lost, doubled or miscounted.

    python benchmarks/crash.py [--kills 50] [--steps] [--store-down 600] [--json]

- ``--kills N``: kill -9 of receiver and engine in turn, N in all, while three senders send and
  segments are small; with the time until a request is acknowledged again and until the page is
  ready again.
- ``--steps``: kill -9 before every step of the loops and of a session's erasure, in the roles
  `all` and `worker` (`tests/faults/test_every_step.py` says what a step is).
- ``--store-down S``: the store is a ClickHouse HTTP server (chDB behind it), killed under load
  and away for S seconds.

Exit 1 when something was lost, doubled or miscounted. With `--json` one object a part.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

# What a part needs is imported there: the server's processes import this file when they start,
# and their start is what `kills` measures.


def kills(data: Path, n_kills: int, seed: int) -> dict[str, Any]:
    from tests.faults.kills import kill_under_load

    killed = kill_under_load(
        data,
        n_kills=n_kills,
        seed=seed,
        told=lambda n: print(f"\r{n} of {n_kills} kills", end="", file=sys.stderr, flush=True),
    )
    print(file=sys.stderr)
    return {
        "part": "kills",
        "n_kills": n_kills,
        **asdict(killed.account),
        **_spread("acknowledged_again_s", killed.acknowledged_again_s),
        **_spread("ready_again_s", killed.ready_again_s),
    }


def steps(data: Path, role: str) -> dict[str, Any]:
    """Die at every step; a wrong count in between ends the lives with an AssertionError."""
    from tests.faults.test_every_step import die_at_every_step

    died = die_at_every_step(data, role=role, erases=True)
    return {"part": f"steps, {role}", "n_kills": len(died), "n_lost": 0, "n_doubled": 0}


def outage(data: Path, down_s: float) -> dict[str, Any]:
    from tests.faults.outage import store_down

    # Half a minute of traffic at the pace of `kills` is a few thousand spans; for ten minutes
    # a slower pace, so that the end is not waited for much longer.
    found = store_down(data, down_s, pause_s=0.05 if down_s < 60 else 0.5)
    figures = {name: value for name, value in asdict(found).items() if name != "account"}
    return {"part": "store down", **figures, **asdict(found.account)}


def _spread(name: str, values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {f"{name}_median": statistics.median(values), f"{name}_max": max(values)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--store-down", type=float, default=0.0)
    parser.add_argument("--json", action="store_true", dest="as_json")
    asked = parser.parse_args()
    if not (asked.kills or asked.steps or asked.store_down):
        asked.kills = 50
    is_exact = True
    with tempfile.TemporaryDirectory() as folder:
        parts: list[Callable[[], dict[str, Any]]] = []
        if asked.kills:
            parts.append(partial(kills, Path(folder) / "kills", asked.kills, asked.seed))
        if asked.steps:
            parts += [partial(steps, Path(folder) / role, role) for role in ("all", "worker")]
        if asked.store_down:
            parts.append(partial(outage, Path(folder) / "down", asked.store_down))
        for part in parts:
            started = time.monotonic()
            figures = {**part(), "took_s": round(time.monotonic() - started, 1)}
            is_exact &= not any(
                figures.get(f"n_{what}") for what in ("lost", "doubled", "miscounted")
            )
            if asked.as_json:
                print(json.dumps(figures), flush=True)
            else:
                print(
                    *(f"{name:28}{value}" for name, value in figures.items()), sep="\n", end="\n\n"
                )
    return 0 if is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
