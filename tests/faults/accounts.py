"""What is stored against what was acknowledged, and the roll-up against a recount."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Account", "Ask", "account", "account_of"]

Ask = Callable[[str], list[list[Any]]]
"""Answers SQL with rows."""

_ROLLED_UP = """SELECT service, operation, minute, sum(n_spans), sum(n_input), sum(n_output)
FROM minutes GROUP BY ALL ORDER BY ALL"""
_COUNTED = """SELECT service, operation, toDateTime64(toStartOfMinute(ts), 0, 'UTC') AS minute,
sum(weight), sum(weight * input_tokens), sum(weight * output_tokens)
FROM spans GROUP BY service, operation, minute ORDER BY ALL"""


@dataclass(frozen=True)
class Account:
    """How many spans there are, and how many are wrong.

    Attributes:
        n_unasked: Stored and never acknowledged: their sender was killed, or gave up.
        n_miscounted: Minutes of the roll-up that differ from a recount.
    """

    n_acknowledged: int
    n_stored: int
    n_lost: int
    n_doubled: int
    n_unasked: int
    n_miscounted: int

    @property
    def is_exact(self) -> bool:
        """Return whether nothing is lost, doubled or miscounted."""
        return not (self.n_lost or self.n_doubled or self.n_miscounted)


def account(ask: Ask, acknowledged: Collection[str]) -> Account:
    """Compare a store with the span ids (hex) that were acknowledged."""
    found = ask("SELECT lower(hex(span_id)) AS id, count() AS n FROM spans GROUP BY id")
    stored: dict[str, int] = {row[0]: row[1] for row in found}
    rolled, counted = (
        {(row[0], row[1], str(row[2])): row[3:] for row in ask(sql)}
        for sql in (_ROLLED_UP, _COUNTED)
    )
    return Account(
        n_acknowledged=len(acknowledged),
        n_stored=len(stored),
        n_lost=len(set(acknowledged) - stored.keys()),
        n_doubled=sum(n > 1 for n in stored.values()),
        n_unasked=len(stored.keys() - set(acknowledged)),
        n_miscounted=sum(
            rolled.get(place) != counted.get(place) for place in rolled.keys() | counted.keys()
        ),
    )


def account_of(store: Path, acknowledged: Collection[str]) -> Account:
    """Open a chDB folder in a process of its own and compare it; see `account`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.accounts", str(store)],
        input=json.dumps(sorted(acknowledged)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Account(**json.loads(done.stdout))


if __name__ == "__main__":
    import clickhouse_connect

    client = clickhouse_connect.get_client(interface="chdb", path=sys.argv[1])
    found = account(
        lambda sql: [list(row) for row in client.query(sql).result_rows], json.load(sys.stdin)
    )
    client.close()
    print(json.dumps(asdict(found)))
