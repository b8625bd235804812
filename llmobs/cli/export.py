"""`llmobs export`: what is stored as Parquet files on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from llmobs.errors import LlmobsError
from llmobs.web.client import Api

__all__ = ["export"]


@click.command()
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder on this machine; made where it is missing.",
)
@click.option(
    "--since", default="24h", show_default=True, help="Begin: 15m, 24h, 7d or 2026-11-24T12:00Z."
)
@click.option("--until", help="End, as --since [default: now].")
@click.option(
    "--what",
    default="spans,scores,events",
    show_default=True,
    help="Tables, with commas between them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option(
    "--url",
    envvar="LLMOBS_URL",
    default="http://127.0.0.1:4319",
    show_default=True,
    help="Address of the server's page.",
)
@click.option("--token", envvar="LLMOBS_WEB_TOKEN", help="The server's web token.")
def export(
    folder: Path,
    since: str,
    until: str | None,
    what: str,
    as_json: bool,
    url: str,
    token: str | None,
) -> None:
    """Write Parquet files, one a table and day (UTC): spans, scores and events.

    A file has its name once it is whole, and replaces an earlier one. `llmobs replay` sends
    spans and events to a server again.
    """
    api = Api(url, token)
    plan = api.get("export", since=since, until=until, what=what)
    window = {"since": plan["window"]["since_ms"], "until": plan["window"]["until_ms"]}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LlmobsError(f"the folder {str(folder)!r} can't be made: {error}") from error
    done = []
    with _Bar(plan["files"], quiet=as_json) as bar:
        for file in plan["files"]:
            done.append(_download(api, folder, file, window, bar))
            if as_json:
                click.echo(json.dumps(done[-1]))
    n_rows, n_bytes = (sum(file[key] for file in done) for key in ("rows", "bytes"))
    click.echo(
        f"{n_rows:,} rows in {len(done)} files ({n_bytes / 1e6:,.1f} MB) in {folder}", err=True
    )


class _Bar:
    """One bar over the rows of all files, for people, on stderr."""

    def __init__(self, files: Sequence[Mapping[str, Any]], *, quiet: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rows"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet,
        )
        self._task = self._progress.add_task("", total=sum(file["rows"] for file in files))

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def begin(self, name: str) -> None:
        self._progress.update(self._task, description=name)

    def end(self, n_rows: int) -> None:
        self._progress.advance(self._task, n_rows)


def _download(
    api: Api, folder: Path, file: Mapping[str, Any], window: Mapping[str, Any], bar: _Bar
) -> dict[str, Any]:
    """Fetch one file; return what it is."""
    import pyarrow.parquet as pq

    bar.begin(file["name"])
    path = folder / Path(file["name"]).name  # never elsewhere, whatever the server says
    partial = path.with_name(f"{path.name}.part")
    try:
        with partial.open("wb") as sink:
            n_bytes = sum(api.download(f"export/{file['name']}", sink, **window))
        n_rows = int(pq.read_metadata(partial).num_rows)
        partial.replace(path)
    except OSError as error:
        raise LlmobsError(f"{str(path)!r} can't be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    bar.end(file["rows"])
    return {"file": str(path), "table": file["table"], "rows": n_rows, "bytes": n_bytes}
