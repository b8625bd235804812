"""Prints rows: a table for people, one JSON object a line for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["Column", "clock", "count", "duration_ms", "print_rows", "progress", "ratio", "usd"]

Column: TypeAlias = tuple[str, str, Callable[[Any], str]]
"""(key of the row, heading, how to show the value)"""


def print_rows(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[Column], *, as_json: bool, empty: str
) -> None:
    """Print rows to stdout.

    Args:
        rows: What to print.
        columns: What a table shows; JSON shows everything.
        as_json: One JSON object a line instead of a table.
        empty: What to say, on stderr, when there is no row.
    """
    rows = list(rows)
    if as_json:
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
        return
    if not rows:
        click.echo(empty, err=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for _, heading, show in columns:
        right = show in {count, usd, ratio, duration_ms}
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(show(row.get(key)) for key, _, show in columns))
    Console(highlight=False).print(table)


def progress(*counters: ProgressColumn, quiet: bool) -> Progress:
    """Return bars for people, on stderr: what is done, a bar, counters, and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *counters,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )


def count(value: Any) -> str:
    """Show a number of things."""
    return "–" if value is None else f"{value:,.0f}"


def usd(value: Any) -> str:
    """Show money; a price that is not known is not 0."""
    return "–" if value is None else f"${value:,.4f}"


def ratio(value: Any) -> str:
    """Show a share of 1."""
    return "–" if value is None else f"{value:.1%}"


def duration_ms(value: Any) -> str:
    """Show milliseconds."""
    return "–" if value is None else f"{value:,.0f} ms"


def clock(value: Any) -> str:
    """Show a time (ms since 1970) in the local zone."""
    if value is None:
        return "–"
    return datetime.fromtimestamp(value / 1000, UTC).astimezone().strftime("%m-%d %H:%M:%S")
