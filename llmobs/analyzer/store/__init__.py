"""The store: appends in, named queries out, and the small transactional state beside it."""

from __future__ import annotations

from llmobs.analyzer.store.clickhouse import ClickHouseStore
from llmobs.analyzer.store.clients import Clients
from llmobs.analyzer.store.schema import Retention
from llmobs.analyzer.store.state import SqliteState, open_state

__all__ = ["ClickHouseStore", "Retention", "SqliteState", "open_state", "open_store"]

_GIB = 1 << 30


def open_store(
    url: str,
    *,
    memory_limit_bytes: int = 2 * _GIB,
    retention_days: int = 90,
    texts_days: int | None = None,
    rollups_days: int = 400,
    query_timeout_s: float = 15.0,
    text_index: bool = False,
) -> ClickHouseStore:
    """Open the store, make its tables or bring them up to date.

    A chDB directory belongs to one process, and a process can hold one directory at a time;
    never fork a process that has it open (a query in the child hangs).

    Args:
        url: ``chdb:///absolute/path`` for ClickHouse in process, or
            ``clickhouse://user:password@host:port/database`` for a server's HTTP port
            (``clickhouses`` with TLS), and ``?cluster=NAME`` behind it for tables over a
            cluster's shards and replicas. All run the same SQL through the same client;
            ``docs/cluster.md`` says what of it was proven.
        memory_limit_bytes: What the embedded engine may take for all that it does; one
            query may take half of it.
        retention_days: How long spans, scores, events and metric points are kept after they
            arrived, in days.
        texts_days: The same for prompts, answers and bodies; None: as long as their spans.
        rollups_days: The same for the minute roll-up, which knows no user and no text.
        query_timeout_s: After so long a query is given up with a `StoreError`.
        text_index: Find texts by an index of their words: a search over a day takes from a
            fiftieth to a quarter of the time, and short spans take twice the disk. It can be
            switched at every start; results are the same.

    Raises:
        ConfigurationError: The URL is wrong.
        StoreError: The directory is in use, the server can't be reached, or the tables
            belong to a newer llmobs.
    """
    retention = Retention(retention_days, texts_days or retention_days, rollups_days)
    clients = Clients(url, memory_limit_bytes=memory_limit_bytes, query_timeout_s=query_timeout_s)
    try:
        return ClickHouseStore(clients, retention, text_index=text_index)
    except BaseException:
        clients.close()
        raise
