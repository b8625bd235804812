"""Measurements in processes of their own that take turns, against one server beside them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["serving", "take_turns"]

Measured = TypeVar("Measured")


@contextmanager
def serving(command: Sequence[str]) -> Iterator[str]:
    """Run a server that prints its port as first line; yield its address, and end it."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def take_turns(
    names: Collection[str], n_rounds: int, run: Callable[[str], Measured]
) -> list[dict[str, Measured]]:
    """Run each once a round, another first every time, so that a neighbour's load falls on all."""
    rounds = []
    for number in range(n_rounds):
        first = number % len(names)
        ordered = [*names][first:] + [*names][:first]
        done = {name: run(name) for name in ordered}
        rounds.append(done)
        print(f"round {number + 1} of {n_rounds}: {done}", file=sys.stderr, flush=True)
    return rounds
