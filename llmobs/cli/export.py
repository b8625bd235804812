"""`llmobs export`: what is stored as Parquet files on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.progress import MofNCompleteColumn, TextColumn

from llmobs.cli import options
from llmobs.cli.output import progress
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
@options.begin("24h")
@options.until
@click.option(
    "--what",
    default="spans,scores,events",
    show_default=True,
    help="Tables, with commas between them.",
)
@options.as_json
@options.url
@options.token
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
    with progress(MofNCompleteColumn(), TextColumn("rows"), quiet=as_json) as bars:
        bar = bars.add_task("", total=sum(file["rows"] for file in plan["files"]))
        for file in plan["files"]:
            bars.update(bar, description=file["name"])
            done.append(_download(api, folder, file, window))
            bars.advance(bar, file["rows"])
            if as_json:
                click.echo(json.dumps(done[-1]))
    n_rows, n_bytes = (sum(file[key] for file in done) for key in ("rows", "bytes"))
    click.echo(
        f"{n_rows:,} rows in {len(done)} files ({n_bytes / 1e6:,.1f} MB) in {folder}", err=True
    )


def _download(
    api: Api, folder: Path, file: Mapping[str, Any], window: Mapping[str, Any]
) -> dict[str, Any]:
    """Fetch one file; return what it is."""
    import pyarrow.parquet as pq

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
    return {"file": str(path), "table": file["table"], "rows": n_rows, "bytes": n_bytes}
