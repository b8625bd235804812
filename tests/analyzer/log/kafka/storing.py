"""A small store that behaves as the real one does, and ways to fill it from readers."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llmobs.analyzer.log.kafka import KafkaLogReader
from llmobs.records import Segment, first_number, source_of
from tests.waiting import wait_until

TIMEOUT_S = 60.0


class SmallStore:
    """Keeps requests and positions in SQLite; may be used by several processes at once.

    As in ClickHouse, what is stored of a segment and the note that all is stored are two
    things: a process may die in between, and leave rows without the note.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._connected() as db:
            db.executescript(
                "PRAGMA journal_mode=WAL;"
                "CREATE TABLE IF NOT EXISTS rows (segment INTEGER, signal TEXT, request BLOB);"
                "CREATE TABLE IF NOT EXISTS segments (source INTEGER, until INTEGER);"
            )

    def position(self, source: int) -> int:
        with self._connected() as db:
            row = db.execute("SELECT max(until) FROM segments WHERE source = ?", [source])
            return row.fetchone()[0] or first_number(source)

    def append(self, segment: Segment, pause_s: float = 0.0) -> None:
        rows = [(segment.number, signal, request) for signal, request in segment.requests]
        with self._connected() as db:
            if segment.may_be_stored:
                db.execute("DELETE FROM rows WHERE segment = ?", [segment.number])
            found = db.execute("SELECT count(*) FROM rows WHERE segment = ?", [segment.number])
            assert found.fetchone() == (0,), "a segment came back without a word"
            for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                db.executemany("INSERT INTO rows VALUES (?, ?, ?)", half)
                db.commit()
                time.sleep(pause_s)
            source = source_of(segment.number)
            db.execute("INSERT INTO segments VALUES (?, ?)", [source, segment.until])

    def requests(self) -> list[tuple[str, bytes]]:
        """Return signal and bytes of all that is stored, segments in ascending order."""
        with self._connected() as db:
            rows = db.execute("SELECT signal, request FROM rows ORDER BY segment, rowid")
            return [tuple(row) for row in rows]

    def values(self, n_bytes: int = 12) -> list[bytes]:
        return [request[:n_bytes] for _, request in self.requests()]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path, timeout=30)
        try:
            with db:
                yield db
        finally:
            db.close()


def step(reader: KafkaLogReader, store: SmallStore, pause_s: float = 0.0) -> int:
    """Store the next segment, if there is one, and return how many waited."""
    waiting = reader.sealed()
    if waiting:
        store.append(reader.read(waiting[0]), pause_s)
        reader.remove(waiting[0])
    return len(waiting)


def store_until(store: SmallStore, is_enough: Callable[[], bool], *readers: KafkaLogReader) -> None:
    """Store what the readers have, in turns, until it is enough."""
    wait_until(lambda: not sum(step(reader, store) for reader in readers) and is_enough())
