"""All commands of `llmobs`."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import click

from llmobs.cli import options
from llmobs.cli.data import replay
from llmobs.cli.delete import delete
from llmobs.cli.doctor import doctor
from llmobs.cli.export import export
from llmobs.cli.import_otel import import_otel
from llmobs.cli.output import Column, clock, count, duration_ms, print_rows, usd
from llmobs.cli.rescore import rescore
from llmobs.cli.scorers import scorers
from llmobs.errors import LlmobsError
from llmobs.web.client import Api

__all__ = ["cli"]


class _Commands(click.Group):
    """Turns our own errors into one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LlmobsError as error:
            click.echo(f"llmobs: {error}", err=True)
            ctx.exit(2)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llmobs")
def cli() -> None:
    """Observe and monitor LLM applications: traces, cost, scores, drift, alerts."""


@cli.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder of everything that is kept.")
@options.config
@click.option("--host", help="Address to listen on [default: 127.0.0.1].")
@click.option("--grpc-port", type=int, help="OTLP/gRPC [default: 4317].")
@click.option("--http-port", type=int, help="OTLP/HTTP [default: 4318].")
@click.option("--web-port", type=int, help="Page, API and /metrics [default: 4319].")
def up(config: Path | None, **flags: Any) -> None:
    """Run the server on this machine until Ctrl-C or SIGTERM."""
    from llmobs.server import Server, configure_logging
    from llmobs.settings import load_settings

    configure_logging()
    server = Server(load_settings(config, **flags))

    def end(*_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # once is enough: from here on it drains
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    server.start()
    try:
        server.wait_ready()
        settings = server.settings
        click.echo(f"page         {settings.page_url}", err=True)
        click.echo(f"OTLP/HTTP    http://{settings.host}:{settings.http_port}", err=True)
        click.echo(f"OTLP/gRPC    {settings.host}:{settings.grpc_port}", err=True)
        click.echo(f"data         {settings.data.absolute()}", err=True)
        click.echo("Ctrl-C stops it; nothing acknowledged is lost.", err=True)
        threading.Event().wait()
    finally:
        click.echo("draining …", err=True)
        server.stop()


@cli.command()
@click.option(
    "--speed",
    type=click.FloatRange(1, 240),
    default=24.0,
    show_default=True,
    help="Trace seconds that pass in one.",
)
@click.option("--seed", default=1, show_default=True, help="Chooses sessions and texts.")
@click.option(
    "--check", is_flag=True, help="Exit 1 if an incident is missed or an alert comes early."
)
@click.option(
    "--stay/--no-stay",
    default=None,
    help="Keep the page up at the end [default: if a person watches].",
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder to keep [default: a temporary one]."
)
@click.option("--web-port", type=int, default=0, help="Port of the page [default: a free one].")
@click.option("--endpoint", help="Send to this OTLP/HTTP server instead of starting one.")
@options.as_json
def demo(as_json: bool, check: bool, **options: Any) -> None:
    """Play an hour of real traffic with six incidents, and show what was detected."""
    from llmobs.demo.run import run_demo

    report = run_demo(quiet=as_json, **options)
    if as_json:
        click.echo(json.dumps(report.to_json()))
    if check and not report.passed:
        raise click.exceptions.Exit(1)


_SESSION: tuple[Column, ...] = (
    ("session_id", "session", _text),
    ("user_id", "user", _text),
    ("features", "feature", _text),
    ("last_ms", "last call", clock),
    ("calls", "calls", count),
    ("errors", "errors", count),
    ("input_tokens", "tokens in", count),
    ("output_tokens", "out", count),
    ("cost_usd", "cost", usd),
)


@cli.command()
@click.option(
    "--order",
    type=click.Choice(["last", "cost", "calls", "errors"]),
    default="last",
    show_default=True,
    help="What comes first.",
)
@options.since
@options.limit
@options.as_json
@options.url
@options.token
def sessions(url: str, token: str | None, as_json: bool, **query: Any) -> None:
    """List sessions with their cost."""
    rows = Api(url, token).get("sessions", **query)["sessions"]
    print_rows(rows, _SESSION, as_json=as_json, empty="no session in that time")


_TRACE: tuple[Column, ...] = (
    ("trace_id", "trace", _text),
    ("ts_ms", "at", clock),
    ("name", "name", _text),
    ("feature", "feature", _text),
    ("duration_ms", "took", duration_ms),
    ("calls", "calls", count),
    ("errors", "errors", count),
    ("cost_usd", "cost", usd),
    ("flags", "flags", _text),
)


@cli.command()
@click.option("--service", help="Only this service.")
@click.option("--feature", help="Only this feature.")
@click.option("--model", help="Only this model.")
@click.option("--session", "session_id", help="Only this session.")
@click.option("--text", "q", help="Only where prompt or answer holds this.")
@click.option("--flag", help="Only where this check failed (toxicity, injection, pii …).")
@click.option(
    "--errors", "error", is_flag=True, flag_value="1", default=None, help="Only failed ones."
)
@options.since
@options.limit
@options.as_json
@options.url
@options.token
def traces(url: str, token: str | None, as_json: bool, **query: Any) -> None:
    """List traces, newest first."""
    rows = Api(url, token).get("traces", **query)["traces"]
    print_rows(rows, _TRACE, as_json=as_json, empty="no trace matches in that time")


_COST: tuple[Column, ...] = (
    ("key", "of", _text),
    ("calls", "calls", count),
    ("input_tokens", "tokens in", count),
    ("output_tokens", "out", count),
    ("cost_usd", "cost", usd),
    ("unpriced_calls", "unpriced", count),
)


@cli.command()
@click.option(
    "--by",
    type=click.Choice(
        [
            "service",
            "environment",
            "feature",
            "provider",
            "request_model",
            "agent",
            "session_id",
            "user_id",
            "prompt_name",
            "prompt_version",
            "day",
            "hour",
        ]
    ),
    default="request_model",
    show_default=True,
    help="What to sum over.",
)
@options.since
@options.as_json
@options.url
@options.token
def cost(url: str, token: str | None, as_json: bool, **query: Any) -> None:
    """Show what was spent, dearest first."""
    rows = Api(url, token).get("cost", **query)["rows"]
    print_rows(rows, _COST, as_json=as_json, empty="no call in that time")


_MONITOR: tuple[Column, ...] = (
    ("monitor", "monitor", _text),
    ("service", "service", _text),
    ("feature", "feature", _text),
    ("state", "state", _text),
    ("words", "in words", _text),
)


@cli.command()
@options.as_json
@options.url
@options.token
def drift(url: str, token: str | None, as_json: bool) -> None:
    """Show the monitors; exit 1 when one is in alarm."""
    rows = Api(url, token).get("monitors")["monitors"]
    print_rows(rows, _MONITOR, as_json=as_json, empty="no monitor yet: no traffic was analyzed")
    if any(row["state"] == "alarm" for row in rows):
        raise click.exceptions.Exit(1)


@cli.group()
def alerts() -> None:
    """Show alerts, and try the channels."""


_ALERT: tuple[Column, ...] = (
    ("state", "state", _text),
    ("severity", "severity", _text),
    ("starts_at_ns", "since", lambda ns: clock(ns / 1e6 if ns else None)),
    ("title", "what", _text),
)


@alerts.command("list")
@click.option("--firing", "state", flag_value="firing", default=None, help="Only what fires now.")
@options.as_json
@options.url
@options.token
def alerts_list(url: str, token: str | None, as_json: bool, state: str | None) -> None:
    """List alerts, newest first; exit 1 when one is firing."""
    rows = Api(url, token).get("alerts", state=state)["alerts"]
    print_rows(rows, _ALERT, as_json=as_json, empty="no alert")
    if any(row["state"] == "firing" for row in rows):
        raise click.exceptions.Exit(1)


@alerts.command("test")
@click.argument("channel")
@options.config
def alerts_test(channel: str, config: Path | None) -> None:
    """Send a test alert to CHANNEL, as named in the settings."""
    from llmobs.analyzer.notify import AppriseNotifier, sample_alert
    from llmobs.errors import ConfigurationError
    from llmobs.settings import load_settings

    channels = load_settings(config).channels
    if channel not in channels:
        known = ", ".join(sorted(channels)) or "none; add one under [channels] in llmobs.toml"
        raise ConfigurationError(f"no channel {channel!r} in the settings; known: {known}")
    AppriseNotifier(channel, channels[channel].get_secret_value()).send(*sample_alert())
    click.echo(f"{channel}: delivered", err=True)


@cli.group()
def grafana() -> None:
    """Bring dashboards and alert rules to a Grafana."""


def _grafana_options(command: Any) -> Any:
    command = click.option(
        "--token", envvar="GRAFANA_TOKEN", help="Service-account token, or user:password."
    )(command)
    return click.option(
        "--url", envvar="GRAFANA_URL", required=True, help="Address of the Grafana."
    )(command)


@grafana.command("push")
@_grafana_options
def grafana_push(url: str, token: str | None) -> None:
    """Create or update llmobs's folder, dashboards and alert rules."""
    _print_changes(_publisher(url, token).push())


@grafana.command("diff")
@_grafana_options
def grafana_diff(url: str, token: str | None) -> None:
    """Show what a push would change; exit 1 when it would."""
    changes = _publisher(url, token).diff()
    _print_changes(changes)
    if changes:
        raise click.exceptions.Exit(1)


def _publisher(url: str, token: str | None) -> Any:
    from llmobs.analyzer.publish import GrafanaPublisher

    return GrafanaPublisher(url, token=token or "")


def _print_changes(changes: list[str]) -> None:
    for change in changes:
        click.echo(change)
    if not changes:
        click.echo("nothing to change", err=True)


@cli.command()
@options.config
@options.as_json
def settings(config: Path | None, as_json: bool) -> None:
    """Show every setting with its value, its variable and what it means."""
    from llmobs.settings import Settings, load_settings

    values = load_settings(config)
    rows = [
        {
            "setting": name,
            "value": str(getattr(values, name)),
            "variable": f"LLMOBS_{name.upper()}",
            "meaning": field.description,
        }
        for name, field in Settings.model_fields.items()
    ]
    columns: tuple[Column, ...] = (
        ("setting", "setting", _text),
        ("value", "value", _text),
        ("meaning", "meaning", _text),
    )
    print_rows(rows, columns, as_json=as_json, empty="")


@cli.command()
@options.as_json
@options.url
@options.token
def status(url: str, token: str | None, as_json: bool) -> None:
    """Show whether the server is well, and what it holds."""
    body = Api(url, token).get("status")
    if as_json:
        click.echo(json.dumps(body))
        return
    for group, values in body.items():
        for name, value in values.items() if isinstance(values, dict) else [("", values)]:
            click.echo(f"{group:10} {name:24} {_text(value)}")


cli.add_command(delete)
cli.add_command(doctor)
cli.add_command(export)
cli.add_command(import_otel)
cli.add_command(replay)
cli.add_command(rescore)
cli.add_command(scorers)
