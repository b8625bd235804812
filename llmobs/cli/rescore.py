"""`llmobs rescore`: scores again what an earlier version of a scorer judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import click
from rich.progress import MofNCompleteColumn, TextColumn

from llmobs.cli import options
from llmobs.cli.output import progress
from llmobs.web.client import Api

__all__ = ["rescore"]

_DONE: Final = -1


@click.command()
@options.begin("7d")
@options.until
@options.scorers
@options.as_json
@options.url
@options.admin_token
@click.pass_context
def rescore(
    ctx: click.Context,
    since: str,
    until: str | None,
    scorers: Sequence[str],
    as_json: bool,
    url: str,
    token: str | None,
) -> None:
    """Score stored spans again with the scorers that the server has now; exit 1 if one fails.

    What has a score of a scorer's present version is left as it is, so an interrupted run goes on
    when it is begun again. Scores of earlier versions are kept; shown is the one stored last.
    """
    api = Api(url, token)
    query: dict[str, Any] = {"since": since, "until": until, "scorer": ",".join(scorers) or None}
    n_spans, n_scores = 0, 0
    failed: dict[str, str] = {}
    versions: dict[str, str] = {}
    with progress(MofNCompleteColumn(), TextColumn("spans"), quiet=as_json) as bars:
        bar, after = bars.add_task("scoring", total=None), None
        while after != _DONE:
            row = api.post("rescore", after=after, **query)
            after = row["after"]
            query["since"], query["until"] = row["window"]["since_ms"], row["window"]["until_ms"]
            n_spans, n_scores = n_spans + row["n_spans"], n_scores + row["n_scores"]
            failed, versions = {**failed, **row["failed"]}, row["versions"]
            bars.update(bar, total=n_spans + row["n_left"], completed=n_spans)
            if as_json:
                done = {"n_spans": n_spans, "n_scores": n_scores, "n_left": row["n_left"]}
                click.echo(json.dumps({**done, "versions": versions, "failed": failed}))
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    click.echo(f"{n_spans:,} spans read, {n_scores:,} scores stored ({named})", err=True)
    for name, reason in failed.items():
        click.echo(f"{name} failed: {reason}; rescore again when it is mended", err=True)
    ctx.exit(1 if failed else 0)
