"""Where tables lie: all on one server, or spread over the shards and replicas of a cluster.

`schema.py` describes each table once; a layout turns the description into statements. On a
cluster

- rows of a trace lie on one shard, so that what joins or deletes by trace stays on it. A table
  ``spans`` is then a Distributed one over ``spans_local`` of every shard, each replicated;
- a small table is replicated to every node, whole. It is asked on all of them at once
  (`Layout.everywhere`): what a majority has acknowledged, one that answers has;
- a replica may lag behind what was acknowledged. Who must not miss a row waits for the
  replicas first (`Layout.settle`).
"""

# ruff: noqa: S608 -- what is put into SQL as text are constants of this room and checked names

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from llmobs.errors import ConfigurationError

__all__ = ["Cluster", "Definition", "Layout", "OneServer", "RollUp", "Table", "View"]

_NAME: Final = re.compile(r"[A-Za-z0-9_.{}-]+")

# A repeated insert must cut its rows as the first one did, so no key here is random.
_SHARD_BY: Final = {
    "spans": "cityHash64(trace_id)",
    "scores": "cityHash64(trace_id)",
    "events": "cityHash64(trace_id)",
    "metric_points": "cityHash64(service, name)",
    # Written by the view on the shard of its spans; this is for what is counted again.
    "minutes": "cityHash64(service, minute)",
}
"""What decides the shard of a row. A table that is not here is whole on every node."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is on one server.

    Attributes:
        name: What queries call it.
        columns: Columns and indexes, as they stand in brackets.
        engine: MergeTree or one of its family.
        keys: Partition and order.
        settings: Of the engine.
    """

    name: str
    columns: str
    engine: str
    keys: str
    settings: str


@dataclass(frozen=True, slots=True)
class RollUp:
    """A view that counts what is inserted into one table in another.

    Attributes:
        name: Of the view.
        source: Table that it counts; `select` calls it by this name.
        target: Table that holds the counts.
        select: What is counted, up to FROM.
        groups: What comes after the table.
    """

    name: str
    source: str
    target: str
    select: str
    groups: str


@dataclass(frozen=True, slots=True)
class View:
    """A named query.

    Attributes:
        name: What queries call it.
        select: The query.
    """

    name: str
    select: str


Definition: TypeAlias = Table | RollUp | View


class Layout(Protocol):
    """Statements for one way to lie. Each can be run again, by several processes at once."""

    @property
    def read_settings(self) -> Mapping[str, Any]:
        """What every question needs."""

    @property
    def write_settings(self) -> Mapping[str, Any]:
        """What every insert and change needs."""

    def create(self, definition: Definition) -> list[str]:
        """Return statements that make something unless it is there."""

    def alter(self, table: str, changes: str) -> str:
        """Return a statement that changes the storage of a table."""

    def delete(self, table: str, where: str) -> str:
        """Return a statement that deletes rows; its condition may ask tables named by `stored`."""

    def stored(self, table: str) -> str:
        """Return the name under which rows of a table lie where a `delete` runs."""

    def everywhere(self, table: str) -> str:
        """Return what stands after FROM to ask a small table wherever it lies.

        A row may come more than once.
        """

    @property
    def parts(self) -> str:
        """What stands after FROM for `system.parts`, each row of a table once."""

    def settle(self, table: str) -> str | None:
        """Return a statement that ends when replicas have what was acknowledged; None: always."""


class OneServer:
    """Everything on one server, or in this process."""

    read_settings: Mapping[str, Any] = {}
    write_settings: Mapping[str, Any] = {}
    parts = "system.parts"

    def create(self, definition: Definition) -> list[str]:
        """Return the one statement that it takes; see `Layout.create`."""
        return [_create(definition)]

    def alter(self, table: str, changes: str) -> str:
        """Return a change of a table; see `Layout.alter`."""
        return f"ALTER TABLE {table} {changes}"

    def delete(self, table: str, where: str) -> str:
        """Return a deletion; see `Layout.delete`."""
        return f"DELETE FROM {table} WHERE {where}"

    def stored(self, table: str) -> str:
        """Return the table itself; see `Layout.stored`."""
        return table

    def everywhere(self, table: str) -> str:
        """Return the table itself; see `Layout.everywhere`."""
        return table

    def settle(self, table: str) -> str | None:
        """Return None: what was acknowledged is there; see `Layout.settle`."""
        del table
        return None


class Cluster:
    """Shards and replicas that the servers' configuration names as a cluster.

    Every server needs the macros ``shard`` and ``replica`` (unique within its shard).

    Args:
        name: Of the cluster, in ``remote_servers``; a macro like ``{cluster}`` is fine.
        database: The same on every server; it must be there.

    Raises:
        ConfigurationError: A name has characters that none should have.
    """

    read_settings: Mapping[str, Any] = {
        # A subquery is asked once, of all shards, and not by each shard of itself.
        "distributed_product_mode": "global",
    }
    write_settings: Mapping[str, Any] = {
        # Acknowledged is what lies on its shard, and there on most replicas.
        "distributed_foreground_insert": 1,
        "insert_quorum": "auto",
        "insert_quorum_timeout": 60_000,
        # A deletion by a subquery: it asks rows that no one writes any more.
        "allow_nondeterministic_mutations": 1,
        # Rows that are counted again go to the shard of their key.
        "parallel_distributed_insert_select": 0,
    }

    def __init__(self, name: str, database: str) -> None:
        for what, text in (("cluster", name), ("database", database)):
            if not _NAME.fullmatch(text):
                raise ConfigurationError(
                    f"{what} {text!r} has characters that no name should have; use letters, "
                    "digits, '_', '-' and '.'"
                )
        self._name, self._database = name, database
        self._on = f" ON CLUSTER '{name}'"
        self.parts = f"cluster('{name}', system.parts)"

    def create(self, definition: Definition) -> list[str]:
        """Return statements for every node; see `Layout.create`."""
        if isinstance(definition, Table):
            return self._create_table(definition)
        return [_create(definition, self._on, self.stored)]

    def alter(self, table: str, changes: str) -> str:
        """Return a change on every node; see `Layout.alter`."""
        return f"ALTER TABLE {self.stored(table)}{self._on} {changes}"

    def delete(self, table: str, where: str) -> str:
        """Return a deletion on every shard; see `Layout.delete`."""
        return f"DELETE FROM {self.stored(table)}{self._on} WHERE {where}"

    def stored(self, table: str) -> str:
        """Return the table of a shard; see `Layout.stored`."""
        return f"{table}_local" if table in _SHARD_BY else table

    def everywhere(self, table: str) -> str:
        """Return the tables of all nodes; see `Layout.everywhere`."""
        return f"clusterAllReplicas('{self._name}', '{self._database}', '{table}')"

    def settle(self, table: str) -> str | None:
        """Return a wait for the replicas that are up; see `Layout.settle`."""
        return f"SYSTEM SYNC REPLICA{self._on} {self.stored(table)} LIGHTWEIGHT"

    def _create_table(self, table: Table) -> list[str]:
        stored = self.stored(table.name)
        if table.name in _SHARD_BY:
            place = f"'/clickhouse/tables/{{shard}}/{{database}}/{table.name}', '{{replica}}'"
        else:
            place = f"'/clickhouse/tables/all/{{database}}/{table.name}', '{{shard}}-{{replica}}'"
        statements = [
            _create(
                Table(
                    stored,
                    table.columns,
                    f"Replicated{table.engine}({place})",
                    table.keys,
                    table.settings,
                ),
                self._on,
            )
        ]
        if key := _SHARD_BY.get(table.name):
            statements.append(
                f"CREATE TABLE IF NOT EXISTS {table.name}{self._on} AS {stored}\n"
                f"ENGINE = Distributed('{self._name}', '{self._database}', '{stored}', {key})"
            )
        return statements


def _create(definition: Definition, on: str = "", stored: Callable[[str], str] = str) -> str:
    match definition:
        case Table(name, columns, engine, keys, settings):
            return (
                f"CREATE TABLE IF NOT EXISTS {name}{on} (\n  {columns}\n) ENGINE = {engine} {keys}"
                f"\nSETTINGS {settings}"
            )
        case RollUp(name, source, target, select, groups):
            place = stored(source)
            rows = source if place == source else f"{place} AS {source}"
            return (
                f"CREATE MATERIALIZED VIEW IF NOT EXISTS {name}{on} TO {stored(target)} AS "
                f"{select}\nFROM {rows} {groups}"
            )
        case View(name, select):
            return f"CREATE OR REPLACE VIEW {name}{on} AS {select}"
