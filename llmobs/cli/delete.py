"""`llmobs delete`: forgets a user or a session."""

from __future__ import annotations

import json
import urllib.parse

import click

from llmobs.cli import options
from llmobs.errors import ConfigurationError
from llmobs.web.client import Api

__all__ = ["delete"]


@click.command()
@click.option("--user", help="Id of the user.")
@click.option("--session", help="Id of the session.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
@options.url
@options.admin_token
def delete(
    user: str | None, session: str | None, yes: bool, as_json: bool, url: str, token: str | None
) -> None:
    """Forget a user or a session: all that is kept of it and began before now.

    Spans, scores and events go, texts in monitors and findings, and requests that were set
    aside. What still waits in a log, a sender or a recorded file is not taken any more.
    """
    if (user is None) == (session is None):
        raise ConfigurationError("name what to delete: --user ID or --session ID")
    kind, name = ("users", user) if user is not None else ("sessions", session)
    assert name is not None
    if not yes:
        click.confirm(f"Delete all that is kept of {kind[:-1]} {name!r}?", abort=True, err=True)
    row = Api(url, token).delete(f"{kind}/{urllib.parse.quote(name, safe='')}")
    if as_json:
        click.echo(json.dumps(row))
        return
    click.echo(
        f"{row['n_spans']:,} spans deleted with their scores and events, "
        f"{row['n_findings']:,} findings blanked, {row['n_aside']:,} requests set aside removed",
        err=True,
    )
