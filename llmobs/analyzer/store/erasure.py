"""Whom the store was told to forget: what comes late from a log does not bring it back.

The list holds hashes of ids, never the ids. It lies in the store, where every process that
writes sees it; a span or event that matches and began before the deletion is neither stored
nor read, wherever it was in between: in an open or sealed segment, in Kafka, in a sender's
queue, in a file that is replayed.
"""

# ruff: noqa: S608 -- what is put into SQL as text are constants of this room; values are bound

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from llmobs import semconv
from llmobs.analyzer.store.base import Owner
from llmobs.analyzer.store.clients import Clients

__all__ = ["Erasures", "belongs", "names", "says", "unowned_beside"]

Mask = npt.NDArray[np.bool_]

_COLUMNS: Final[dict[Owner, str]] = {"user": "user_id", "session": "session_id"}
_ATTRIBUTES: Final[dict[Owner, tuple[str, ...]]] = {
    "user": (semconv.USER_ID, "enduser.id"),
    "session": (semconv.GEN_AI_CONVERSATION_ID, semconv.SESSION_ID),
}
"""Where an event says whose it is."""
# A span and its events reach the log within minutes of each other.
_TRACES_OF_NS: Final = 86_400_000_000_000
_TS: Final = pa.timestamp("ns", "UTC")


def names(owner: Owner) -> str:
    """Return the condition that a span or a session's score names its owner, ``id``."""
    return f"{_COLUMNS[owner]} = {{id:String}}"


def unowned_beside(owner: Owner, spans: str) -> str:
    """Return the condition that a span names nobody and lies in a trace of the owner.

    Args:
        owner: What ``id`` is an id of.
        spans: Name of the table.
    """
    traces = f"SELECT trace_id FROM {spans} WHERE {names(owner)}"
    return f"user_id = '' AND session_id = '' AND trace_id IN ({traces})"


def belongs(owner: Owner, spans: str) -> str:
    """Return the condition of both."""
    return f"({names(owner)} OR ({unowned_beside(owner, spans)}))"


def says(owner: Owner) -> str:
    """Return the condition that an event names its owner."""
    return " OR ".join(f"attributes_s['{key}'] = {{id:String}}" for key in _ATTRIBUTES[owner])


class Erasures:
    """The list of deletions, and what of a batch it hits.

    Besides users and sessions it names the traces of the last day that held something of
    theirs: spans and events of these that name no owner go with them.

    Args:
        clients: Connections to the store, whose table `erasures` this is.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._until_ns: dict[tuple[str, bytes], int] = {}
        self._newest_ns = 0
        self._load()

    def note(self, owner: Owner, name: str, until_ns: int) -> None:
        """Forget an owner's spans and events that began before `until_ns`.

        Their traces are named too, and so the spans should still be stored.
        """
        row = pa.table(
            {
                "kind": pa.array([owner]),
                "id": pa.array([_hash(owner, name)], pa.binary(16)),
                "until": pa.array([until_ns], _TS),
            }
        )
        self._clients.insert("erasures", row, f"erasure-{secrets.token_hex(8)}")
        self._clients.command(
            f"""INSERT INTO erasures (kind, id, until)
            SELECT DISTINCT 'trace', trace_id, fromUnixTimestamp64Nano({{until:Int64}}, 'UTC')
            FROM spans WHERE {names(owner)}
              AND ts >= fromUnixTimestamp64Nano({{since:Int64}}, 'UTC')""",
            {"id": name, "until": until_ns, "since": max(0, until_ns - _TRACES_OF_NS)},
        )
        self._load()

    def refresh(self) -> None:
        """Learn what other processes were told meanwhile."""
        if self._clients.is_shared:
            self._load()

    def spans(self, table: pa.Table) -> Mask:
        """Return which rows of `SPAN_SCHEMA` are to be forgotten, shape (n,)."""
        return self._gone(table, lambda rows: {o: [rows.column(c)] for o, c in _COLUMNS.items()})

    def events(self, table: pa.Table) -> Mask:
        """Return which rows of `EVENT_SCHEMA` are to be forgotten, shape (n,)."""

        def said(rows: pa.Table, key: str) -> Any:
            return pc.fill_null(pc.map_lookup(rows.column("attributes_s"), key, "first"), "")

        return self._gone(
            table,
            lambda rows: {o: [said(rows, key) for key in keys] for o, keys in _ATTRIBUTES.items()},
        )

    def _gone(
        self, table: pa.Table, owners: Callable[[pa.Table], Mapping[Owner, Sequence[Any]]]
    ) -> Mask:
        """Return what goes: what names an owner, and what names nobody beside it in a trace."""
        ts_ns = table.column("ts_ns").to_numpy()
        gone = np.zeros(table.num_rows, np.bool_)
        # What began before the last deletion: among live traffic, nothing.
        old = np.flatnonzero(ts_ns < self._newest_ns)
        if not len(old):
            return gone
        rows = table.take(pa.array(old))
        names_nobody = np.ones(len(old), np.bool_)
        for owner, columns in owners(rows).items():
            for who in columns:
                gone[old] |= self._hits(owner, who, rows)
                names_nobody &= _is_empty(who)
        gone[old] |= names_nobody & self._hits("trace", rows.column("trace_id"), rows)
        return gone

    def _load(self) -> None:
        rows = self._clients.ask_everywhere(
            "erasures",
            "SELECT kind, hex(id) AS id, max(toUnixTimestamp64Nano(until)) AS until "
            "FROM {table} GROUP BY kind, id",
        )
        # One assignment: other threads are reading.
        self._until_ns = {(row["kind"], bytes.fromhex(row["id"])): row["until"] for row in rows}
        self._newest_ns = max(self._until_ns.values(), default=0)

    def _hits(self, kind: str, who: Any, rows: pa.Table) -> Mask:
        untils = self._until_ns
        encoded = pc.dictionary_encode(who)
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        of_name = [
            untils.get((kind, _hash(kind, name) if isinstance(name, str) else name), 0)
            for name in encoded.dictionary.to_pylist()
        ]
        until_ns = np.array([*of_name, 0], np.int64)[encoded.indices.to_numpy()]
        hit: Mask = rows.column("ts_ns").to_numpy() < until_ns
        return hit


def _is_empty(who: Any) -> Mask:
    empty: Mask = pc.equal(who, "").to_numpy(zero_copy_only=False)
    return empty


def _hash(kind: str, name: str) -> bytes:
    return hashlib.blake2b(f"{kind}:{name}".encode(), digest_size=16).digest()
