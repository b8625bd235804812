"""Parquet files of what is stored, for notebooks and for the time after the retention."""

# ruff: noqa: S608 -- what is put into SQL as text are constants of this room; values are bound

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from llmobs.analyzer.store.base import Exported, ExportFile
from llmobs.analyzer.store.clients import Clients, as_record
from llmobs.analyzer.store.schema import SCORE_SCHEMA, WINDOW
from llmobs.errors import ConfigurationError
from llmobs.records import EVENT_SCHEMA, SPAN_SCHEMA

__all__ = ["export_files", "parquet_parts"]

_DAY_NS: Final = 86_400_000_000_000
_DAY_ZERO: Final = date(1970, 1, 1).toordinal()
# About a row group; it is in memory a few times over.
_GROUP_BYTES: Final = 32 << 20
_FIRST_ROWS: Final = 4096

# As in spans and events: whole ns, that no reader rounds or moves to another zone.
_SCORES: Final = pa.schema(
    [
        pa.field("ts_ns", pa.int64(), nullable=False) if field.name == "ts" else field
        for field in SCORE_SCHEMA
        if field.name != "seg"
    ]
)
_TABLES: Final[dict[str, pa.Schema]] = {
    "spans": SPAN_SCHEMA,
    "scores": _SCORES,
    "events": EVENT_SCHEMA,
}


def export_files(
    clients: Clients, since_ns: int, until_ns: int, what: Sequence[Exported]
) -> list[ExportFile]:
    """Return the files of an export, one a table and day that has rows.

    Raises:
        ConfigurationError: There is no such table to export.
    """
    unknown = sorted(set(what) - set(_TABLES))
    if unknown:
        raise ConfigurationError(f"can't export {unknown[0]!r}; use {', '.join(_TABLES)}")
    # The days that have rows: a window may be longer than anyone lives.
    return [
        ExportFile(
            table=table,
            day=date.fromordinal(_DAY_ZERO + row["day"]),
            n_rows=row["n"],
            since_ns=max(since_ns, row["day"] * _DAY_NS),
            until_ns=min(until_ns, (row["day"] + 1) * _DAY_NS),
        )
        for table in what
        for row in clients.ask(
            f"""SELECT intDiv(toUnixTimestamp64Nano(ts), {_DAY_NS}) AS day, count() AS n
            FROM {table} WHERE {WINDOW} GROUP BY day ORDER BY day""",
            {"since": since_ns, "until": until_ns},
        )
    ]


def parquet_parts(clients: Clients, file: ExportFile) -> Iterator[bytes]:
    """Write a file piece by piece: one row group is in memory at a time."""
    sink = _Parts()
    with pq.ParquetWriter(sink, _TABLES[file.table], compression="zstd") as writer:
        for group in _row_groups(clients, file.table, file.since_ns, file.until_ns):
            writer.write_table(group, row_group_size=max(group.num_rows, 1))
            yield sink.take()
    yield sink.take()


class _Parts(io.RawIOBase):
    """A file that is written from begin to end, and taken away meanwhile."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._end = 0

    def writable(self) -> bool:
        return True

    def write(self, part: object) -> int:
        content = bytes(cast(bytes, part))
        self._parts.append(content)
        self._end += len(content)
        return len(content)

    def tell(self) -> int:
        return self._end

    def take(self) -> bytes:
        """Return what was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _row_groups(clients: Clients, name: str, since_ns: int, until_ns: int) -> Iterator[pa.Table]:
    """Read some segments at a time: the embedded engine would answer all rows at once.

    Unlike a slice of time, a segment is never larger than what was held in memory before.
    """
    schema = _TABLES[name]
    bound = {"since": since_ns, "until": until_ns}
    segments = clients.ask(
        f"SELECT seg, count() AS n FROM {name} WHERE {WINDOW} GROUP BY seg ORDER BY seg", bound
    )
    columns = ", ".join(field for field in schema.names if field != "ts_ns")
    n_wanted, n, first = _FIRST_ROWS, 0, 0
    for place, row in enumerate(segments, start=1):
        first = first if n else row["seg"]
        n += row["n"]
        if n < n_wanted and place < len(segments):
            continue
        rows = clients.columns(
            f"""SELECT toUnixTimestamp64Nano(ts) AS ts_ns, {columns} FROM {name}
            WHERE {WINDOW} AND seg >= {{first:UInt64}} AND seg <= {{last:UInt64}}
            ORDER BY ts, span_id""",
            {**bound, "first": first, "last": row["seg"]},
        )
        group = as_record(rows, schema)
        yield group
        # The next group has the right size if its rows are as long as these.
        n_wanted, n = group.num_rows * _GROUP_BYTES // max(group.nbytes, 1), 0
