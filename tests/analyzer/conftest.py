"""A store on the real engine, and a state.

The engine can have one directory open at a time in a process. `store` opens a fresh one for a
test and closes it after; a test that needs two lives of one directory closes it and opens
`store_url` again, or starts a process. A module whose tests only ask may open one of its own
for all of them (scope="module") as long as no test of that module uses `store`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmobs.analyzer.store import ClickHouseStore, SqliteState, open_state, open_store


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"chdb://{tmp_path / 'store'}"


@pytest.fixture
def store(store_url: str) -> Iterator[ClickHouseStore]:
    opened = open_store(store_url)
    yield opened
    opened.close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[SqliteState]:
    opened = open_state(tmp_path / "state.db")
    yield opened
    opened.close()
