"""Options that several commands have, said once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import click

__all__ = [
    "admin_token",
    "as_json",
    "begin",
    "config",
    "endpoint",
    "key",
    "limit",
    "patience",
    "scorers",
    "since",
    "token",
    "until",
    "url",
]

Option: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

# Of a server's page.
url: Final = click.option(
    "--url",
    envvar="LLMOBS_URL",
    default="http://127.0.0.1:4319",
    show_default=True,
    help="Address of the server's page.",
)
token: Final = click.option("--token", envvar="LLMOBS_WEB_TOKEN", help="The server's web token.")
admin_token: Final = click.option(
    "--token", envvar="LLMOBS_ADMIN_TOKEN", help="The server's admin token."
)
scorers: Final = click.option(
    "--scorer", "scorers", multiple=True, help="Only this one; may be given again."
)

# Of its OTLP port.
key: Final = click.option("--key", envvar="LLMOBS_INGEST_KEY", help="An ingest key of the server.")
patience: Final = click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Seconds that the server may be full or away.",
)


def endpoint(name: str) -> Option:
    """Return the option of that name for where OTLP is sent to: the parameter `endpoint`."""
    return click.option(
        name,
        "endpoint",
        envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
        default="http://127.0.0.1:4318",
        show_default=True,
        help="OTLP/HTTP address of the server.",
    )


# Of time.
since: Final = click.option(
    "--since", default="24h", show_default=True, help="How far back: 15m, 24h, 7d."
)
until: Final = click.option("--until", help="End, as --since [default: now].")


def begin(default: str) -> Option:
    """Return the option for where a window begins, beside `until`: the parameter `since`."""
    return click.option(
        "--since",
        default=default,
        show_default=True,
        help="Begin: 15m, 24h, 7d or 2026-11-24T12:00Z.",
    )


# Of all.
as_json: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line."
)
limit: Final = click.option("--limit", default=20, show_default=True, help="Rows at most.")
config: Final = click.option(
    "--config", type=click.Path(path_type=Path), envvar="LLMOBS_CONFIG", help="TOML file."
)
