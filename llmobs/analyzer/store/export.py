"""Parquet files of what is stored, for notebooks and for the time after the retention."""

# ruff: noqa: S608 -- what is put into SQL as text are constants of this room; values are bound

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from llmobs.analyzer.store.clients import Clients, as_record
from llmobs.analyzer.store.schema import SCORE_SCHEMA
from llmobs.errors import ConfigurationError, StoreError
from llmobs.records import EVENT_SCHEMA, SPAN_SCHEMA

__all__ = ["EXPORTED", "Exported", "export_parquet"]

Exported: TypeAlias = Literal["spans", "scores", "events"]

_DAY_NS: Final = 86_400_000_000_000
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
EXPORTED: Final[tuple[Exported, ...]] = ("spans", "scores", "events")
"""What can be exported."""


def export_parquet(
    clients: Clients, folder: Path, since_ns: int, until_ns: int, what: Sequence[Exported]
) -> dict[str, int]:
    """Write one file a table and day; see `ClickHouseStore.export_parquet`."""
    unknown = sorted(set(what) - set(_TABLES))
    if unknown:
        raise ConfigurationError(f"can't export {unknown[0]!r}; use {', '.join(_TABLES)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return {name: _export_table(clients, name, folder, since_ns, until_ns) for name in what}
    except OSError as error:
        raise StoreError(f"the export to {str(folder)!r} failed: {error}") from error


def _export_table(clients: Clients, name: str, folder: Path, since_ns: int, until_ns: int) -> int:
    n_rows = 0
    for day in _days(clients, name, since_ns, until_ns):
        bounds = max(since_ns, day * _DAY_NS), min(until_ns, (day + 1) * _DAY_NS)
        date = datetime.fromtimestamp(day * 86_400, UTC).date()
        n_rows += _export_day(clients, name, folder / f"{name}-{date}.parquet", *bounds)
    return n_rows


def _days(clients: Clients, name: str, since_ns: int, until_ns: int) -> list[int]:
    """Return the days since 1970 that have rows: a window may be longer than anyone lives."""
    rows = clients.ask(
        f"""SELECT DISTINCT intDiv(toUnixTimestamp64Nano(ts), {_DAY_NS}) AS day
        FROM {name} WHERE {_WINDOW} ORDER BY day""",
        {"since": since_ns, "until": until_ns},
    )
    return [row["day"] for row in rows]


def _export_day(clients: Clients, name: str, path: Path, since_ns: int, until_ns: int) -> int:
    """Write one file, which has its name only once it is whole; return its number of rows."""
    partial = path.with_name(path.name + ".part")
    n_rows = 0
    try:
        with pq.ParquetWriter(partial, _TABLES[name], compression="zstd") as writer:
            for group in _row_groups(clients, name, since_ns, until_ns):
                writer.write_table(group, row_group_size=max(group.num_rows, 1))
                n_rows += group.num_rows
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return n_rows


def _row_groups(clients: Clients, name: str, since_ns: int, until_ns: int) -> Iterator[pa.Table]:
    """Read some segments at a time: the embedded engine would answer all rows at once.

    Unlike a slice of time, a segment is never larger than what was held in memory before.
    """
    schema = _TABLES[name]
    bound = {"since": since_ns, "until": until_ns}
    segments = clients.ask(
        f"SELECT seg, count() AS n FROM {name} WHERE {_WINDOW} GROUP BY seg ORDER BY seg", bound
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
            WHERE {_WINDOW} AND seg >= {{first:UInt64}} AND seg <= {{last:UInt64}}
            ORDER BY ts, span_id""",
            {**bound, "first": first, "last": row["seg"]},
        )
        group = as_record(rows, schema)
        yield group
        # The next group has the right size if its rows are as long as these.
        n_wanted, n = group.num_rows * _GROUP_BYTES // max(group.nbytes, 1), 0


_WINDOW: Final = (
    "ts >= fromUnixTimestamp64Nano({since:Int64}, 'UTC')"
    " AND ts < fromUnixTimestamp64Nano({until:Int64}, 'UTC')"
)
