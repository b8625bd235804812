"""How the store is: what waits to be read, and whether merges keep up."""

# ruff: noqa: S608 -- what is put into SQL as text are constants of this room; values are bound

from __future__ import annotations

from collections.abc import Collection

from llmobs.analyzer.store.base import Row
from llmobs.analyzer.store.clients import Clients
from llmobs.analyzer.store.schema import SOURCE_OF, unread
from llmobs.records import Cursor

__all__ = ["backlog", "health"]


def health(clients: Clients) -> Row:
    """Return how the engine is; see `base.Store.health`."""
    (parts,) = clients.ask(
        f"""SELECT max(n) AS parts, sum(size) AS size_bytes FROM (
          SELECT count() AS n, sum(bytes_on_disk) AS size FROM {clients.layout.parts}
          WHERE active AND database = currentDatabase() GROUP BY table, partition)"""
    )
    (merges,) = clients.ask(
        "SELECT count() AS merges FROM system.merges WHERE database = currentDatabase()"
    )
    (mutations,) = clients.ask(
        """SELECT count() AS mutations FROM system.mutations
        WHERE database = currentDatabase() AND NOT is_done"""
    )
    return {**{name: int(value or 0) for name, value in parts.items()}, **merges, **mutations}


def backlog(clients: Clients, after: Cursor, sources: Collection[int] | None) -> Row:
    """Return what was stored behind a cursor; see `base.Store.backlog`."""
    wanted = "1"
    if sources is not None:
        numbers = ", ".join(map(str, sorted(sources))) or "NULL"
        wanted = f"{SOURCE_OF} IN ({numbers})"
    (row,) = clients.ask_everywhere(
        "segments",
        f"""SELECT count() AS n_segments, sum(n) AS n_spans,
          if(n_segments = 0, 0, dateDiff('second', min(at), now('UTC'))) AS oldest_s
        FROM (SELECT seg, max(n_spans) AS n, min(stored_at) AS at FROM {{table}}
          WHERE {unread(after)} AND {wanted} GROUP BY seg)""",
    )
    return {name: int(value or 0) for name, value in row.items()}
