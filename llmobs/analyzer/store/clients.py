"""Connections to the engine: one to write, a few to ask, and errors in our own words."""

from __future__ import annotations

import logging
import math
import queue
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from llmobs.analyzer.store.base import Row
from llmobs.analyzer.store.cluster import Cluster, Layout, OneServer
from llmobs.errors import ConfigurationError, StoreError

__all__ = ["Clients", "as_record"]

logger = logging.getLogger(__name__)

# Codes of ClickHouse's ErrorCodes.cpp that a user can cause and mend.
_TIMEOUT_EXCEEDED: Final = 159
_MEMORY_LIMIT_EXCEEDED: Final = 241

# A client answers one question at a time. Four keep two cores busy, and whoever comes fifth
# waits for a moment instead of taking memory.
_N_READERS: Final = 4

# The engine's defaults are for a machine of its own: 5 GB of marks, 90 % of the memory.
_CACHES: Final[dict[str, int]] = {
    "mark_cache_size": 64 << 20,
    "index_mark_cache_size": 32 << 20,
    "query_condition_cache_size": 8 << 20,
}
_WRITE_SETTINGS: Final = {
    # A roll-up must not count a block again whose insert the client repeated by itself.
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_insert_threads": 1,
    "lightweight_deletes_sync": 2,
    "mutations_sync": 2,
    # A server may hold small inserts back, to join them with those of others.
    "async_insert": 0,
}


# From here on the engine's message repeats the statement, with what a user searched for.
_STATEMENT: Final = re.compile(r"[.:,]? (?=in query|in scope|while )", re.IGNORECASE)


class Clients:
    """All connections to one database.

    Args:
        url: ``chdb:///absolute/path`` or ``clickhouse://user:password@host:port/database``,
            with ``?cluster=NAME`` for tables over all its shards and replicas.
        memory_limit_bytes: What the embedded engine may take in all; a query gets half of it.
        query_timeout_s: After so long a question is given up.

    Raises:
        ConfigurationError: The URL is not of one of these forms.
        StoreError: The engine can't be reached or the directory is in use.
    """

    def __init__(self, url: str, *, memory_limit_bytes: int, query_timeout_s: float) -> None:
        self._target = _target(url, memory_limit_bytes)
        self.layout = _layout(url)
        self._read_settings = {
            **self.layout.read_settings,
            "max_execution_time": math.ceil(query_timeout_s),
            "max_memory_usage": memory_limit_bytes // 2,
            # A column's name means the column, also where the same name is given to a sum.
            "prefer_column_name_to_alias": 1,
            "output_format_arrow_string_as_string": 1,
        }
        self._query_timeout_s = query_timeout_s
        self._closed = False
        if not self.is_shared:
            _forget_empty_changes(Path(self._target["path"]))
        self._readers: queue.LifoQueue[Client] = queue.LifoQueue()
        self._writer = self._connect({**_WRITE_SETTINGS, **self.layout.write_settings})
        for _ in range(_N_READERS):
            self._readers.put(self._connect(self._read_settings))

    @property
    def is_shared(self) -> bool:
        """Whether other processes may write into the same tables."""
        return str(self._target["interface"]) != "chdb"

    @property
    def replicas_may_lag(self) -> bool:
        """Whether a question may miss what was acknowledged a moment ago; see `settle`."""
        return isinstance(self.layout, Cluster)

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        """Insert rows; on return they are on disk.

        Args:
            table: Where to.
            rows: Columns of that table; what is left out gets its default.
            token: Inserts of one token count once, should the client repeat one by itself.
        """
        with self._in_our_words("insert"):
            self._writer.insert_arrow(table, rows, settings={"insert_deduplication_token": token})

    def command(
        self, sql: str, parameters: Mapping[str, Any] | None = None, *, token: str = ""
    ) -> None:
        """Run a statement that changes something and wait until it is done.

        Args:
            sql: The statement.
            parameters: Bound to it.
            token: Of one that inserts what it selects, as in `insert`.
        """
        settings = {"insert_deduplication_token": token} if token else None
        with self._in_our_words("change"):
            self._writer.command(sql, parameters=dict(parameters or {}), settings=settings)

    def ask(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Return a query's rows as JSON values, NaN as None."""
        with self._in_our_words("query"), self._reader() as client:
            result = client.query(sql, parameters=dict(parameters or {}))
        names = result.column_names
        return [
            {name: _plain(value) for name, value in zip(names, row, strict=True)}
            for row in result.result_rows
        ]

    def ask_everywhere(
        self, table: str, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> list[Row]:
        """Return a query's rows as `ask` does, over a small table's rows on all nodes that are up.

        Args:
            table: One that is whole on every node.
            sql: With ``{table}`` after FROM. A row may count more than once.
            parameters: Bound to it.
        """
        sql = sql.replace("{table}", self.layout.everywhere(table))
        return self.ask(f"{sql} SETTINGS skip_unavailable_shards = 1", parameters)

    def settle(self, *tables: str) -> None:
        """Wait until what was acknowledged can be asked for, whoever inserted it."""
        for table in tables:
            if statement := self.layout.settle(table):
                self.command(statement)

    def columns(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Return a query's rows as an Arrow table."""
        with self._in_our_words("query"), self._reader() as client:
            return client.query_arrow(sql, parameters=dict(parameters or {}))

    def close(self) -> None:
        """Let go of the engine, once every running question has its answer."""
        if self._closed:
            return
        self._closed = True
        self._writer.close()
        for _ in range(_N_READERS):
            self._readers.get().close()

    @contextmanager
    def _reader(self) -> Iterator[Client]:
        if self._closed:
            raise StoreError("the store is closed")
        client = self._readers.get()
        try:
            yield client
        finally:
            self._readers.put(client)

    def _connect(self, settings: Mapping[str, Any]) -> Client:
        with self._in_our_words("open"):
            return clickhouse_connect.get_client(**self._target, settings=dict(settings))

    @contextmanager
    def _in_our_words(self, what: str) -> Iterator[None]:
        try:
            yield
        except ClickHouseError as error:
            code = getattr(error, "code", None)
            if code == _TIMEOUT_EXCEEDED:
                raise StoreError(
                    f"the {what} took longer than {self._query_timeout_s:g} s and was given up; "
                    "choose a shorter window or more filters"
                ) from error
            if code == _MEMORY_LIMIT_EXCEEDED:
                raise StoreError(
                    f"the {what} needs more memory than the store may take; choose a shorter "
                    "window or more filters, or raise the store's memory limit"
                ) from error
            raise StoreError(f"the store failed to {what}: {_reason(error)}") from error


def _target(url: str, memory_limit_bytes: int) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme == "chdb":
        if parts.netloc or not parts.path.strip("/"):
            raise ConfigurationError(
                f"store URL {url!r} needs an absolute path after chdb://, as in chdb:///var/llmobs"
            )
        if parts.query:
            raise ConfigurationError(f"store URL {url!r} has a query; chdb:// takes none")
        options = {**_CACHES, "max_server_memory_usage": memory_limit_bytes}
        return {"interface": "chdb", "path": parts.path, "chdb_options": options}
    if parts.scheme in {"clickhouse", "clickhouses"} and parts.hostname:
        secure = parts.scheme == "clickhouses"
        return {
            "interface": "https" if secure else "http",
            "host": parts.hostname,
            "port": parts.port or (8443 if secure else 8123),
            "username": unquote(parts.username or "default"),
            "password": unquote(parts.password or ""),
            "database": _database(url),
            # The server refuses parallel questions of one session.
            "autogenerate_session_id": False,
        }
    raise ConfigurationError(
        f"store URL of scheme {parts.scheme!r} is not known; "
        "use chdb:///path or clickhouse://user:password@host:port/database"
    )


def _database(url: str) -> str:
    return unquote(urlsplit(url).path.strip("/")) or "default"


def _layout(url: str) -> Layout:
    query = parse_qs(urlsplit(url).query, keep_blank_values=True)
    clusters = query.pop("cluster", None)
    if query or (clusters and len(clusters) > 1):
        raise ConfigurationError(
            f"store URL has {', '.join(sorted(query)) or 'two clusters'} after the '?'; "
            "it takes cluster=NAME alone"
        )
    return OneServer() if clusters is None else Cluster(clusters[0], _database(url))


def _forget_empty_changes(directory: Path) -> None:
    """Remove changes of rows that a process killed on a full disk left without a word.

    The engine would not open a table that has one. It was never acknowledged, and whoever
    asked for it asks again.
    """
    for change in directory.glob("store/*/*/mutation_*.txt"):
        if not change.stat().st_size:
            change.unlink()
            logger.warning("empty change removed", extra={"file": str(change)})


def as_record(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give rows of the engine the types of a record."""
    if rows.num_rows == 0:
        return schema.empty_table()
    columns = [rows.column(field.name).cast(field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _reason(error: Exception) -> str:
    return _STATEMENT.split(str(error), maxsplit=1)[0].partition("\n")[0][:300]
