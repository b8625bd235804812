"""Plays the demo and says what was detected, when, and how long after its start.

The way is the real one: decorated functions, OTLP over HTTP, the embedded server, its API.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import llmobs
from llmobs.demo.app import ProviderError, answer
from llmobs.demo.workload import (
    INCIDENTS,
    LEARNING_SHARE,
    OF_THE_TRACE,
    Incident,
    Plan,
    make_plan,
)
from llmobs.errors import LlmobsError
from llmobs.server import Server
from llmobs.settings import Settings
from llmobs.web.client import Api

__all__ = ["Detection", "Report", "run_demo"]

POLL_S: Final = 0.5
SETTLE_S: Final = 8.0  # after the last call: what is on its way may still be judged
SERVICE: Final = "demo-shop"


@dataclass(frozen=True)
class Detection:
    """What became of one incident."""

    incident: Incident
    started_s: float
    alert: dict[str, Any] | None
    delay_s: float | None
    summary: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "incident": self.incident.name,
            "feature": self.incident.feature,
            "started_s": round(self.started_s, 1),
            "detected": self.alert is not None,
            "delay_s": None if self.delay_s is None else round(self.delay_s, 1),
            "monitor": self.alert["monitor"] if self.alert else None,
            "summary": self.summary or None,
        }


@dataclass(frozen=True)
class Report:
    """What the demo found out.

    Attributes:
        of_the_trace: Alerts about what changes in the public trace itself: right ones.
        early: Other alerts that fired before the first incident: false ones.
        unexplained: Alerts later on, at a feature or a time without an incident.
        first_alert_s: From the start of the demo, server start included, to the first alert.
    """

    detections: list[Detection]
    of_the_trace: list[dict[str, Any]]
    early: list[dict[str, Any]]
    unexplained: list[dict[str, Any]]
    first_alert_s: float | None
    n_calls: int
    page_url: str
    sdk: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Every incident was detected, and nothing fired before the first one."""
        return not self.early and all(d.alert is not None for d in self.detections)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "passed": self.passed,
            "n_calls": self.n_calls,
            "first_alert_s": self.first_alert_s and round(self.first_alert_s, 1),
            "incidents": [detection.to_json() for detection in self.detections],
            "of_the_trace": [alert["title"] for alert in self.of_the_trace],
            "early": [alert["title"] for alert in self.early],
            "unexplained": [alert["title"] for alert in self.unexplained],
            "sdk": self.sdk,
            "page": self.page_url,
        }


def run_demo(
    *,
    speed: float = 24.0,
    seed: int = 1,
    stay: bool | None = None,
    data: Path | None = None,
    web_port: int = 0,
    endpoint: str | None = None,
    quiet: bool = False,
) -> Report:
    """Play the demo.

    Args:
        speed: How many seconds of the hour-long trace pass in one.
        seed: Chooses sessions, users and texts.
        stay: Keep the page up until Ctrl-C; None: when a person watches.
        data: Where the server keeps its data; None: a folder that is removed.
        web_port: Port of the page; 0: a free one.
        endpoint: An OTLP/HTTP server that runs already; its alerts are not awaited.
        quiet: No progress and no table.

    Raises:
        LlmobsError: The server did not start.
    """
    started = time.monotonic()
    console = Console(stderr=True, quiet=quiet)
    plan = make_plan(speed=speed, seed=seed)
    if endpoint:
        return _play_only(plan, endpoint, console)
    with _folder(data) as folder, Server(_settings(folder, web_port, plan)) as server:
        console.print("starting the server …")
        server.wait_ready()
        settings = server.settings
        console.print(f"page: [bold]{settings.page_url}[/bold]")
        watcher = _Watcher(Api(settings.page_url))
        watcher.start()
        begun = _play(plan, f"http://{settings.host}:{settings.http_port}", console, watcher)
        console.print("waiting for what is on its way …")
        time.sleep(SETTLE_S)
        watcher.stop()
        report = _report(plan, watcher, started, begun, settings.page_url)
        if not quiet:
            _print_report(report)
        llmobs.shutdown()  # while somebody still listens
        if stay if stay is not None else (sys.stdin.isatty() and not quiet):
            console.print(f"page: [bold]{settings.page_url}[/bold]   (Ctrl-C ends it)")
            _until_interrupted()
    return report


def _settings(folder: Path, web_port: int, plan: Plan) -> Settings:
    # Everything that is a time shrinks with the trace: a session's pause, an alert's rest.
    return Settings(
        data=folder,
        grpc_port=0,
        http_port=0,
        web_port=web_port,
        reference_s=plan.length_s * LEARNING_SHARE,
        min_reference_sessions=200,
        session_idle_s=3.0,
        session_cap_s=20.0,
        cooldown_s=10.0,
        resolve_after_s=15.0,
        segment_max_age_s=0.25,
    )


def _play_only(plan: Plan, endpoint: str, console: Console) -> Report:
    _play(plan, endpoint, console, None)
    console.print(f"{len(plan.calls):,} calls sent to {endpoint}; its page shows what it found")
    return Report([], [], [], [], None, len(plan.calls), endpoint, asdict(llmobs.status()))


@contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="llmobs-demo-") as folder:
        yield Path(folder)


def _until_interrupted() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass


# --- playing


def _play(plan: Plan, endpoint: str, console: Console, watcher: _Watcher | None) -> float:
    """Play all calls at their times; return when (monotonic) the first one was due."""
    llmobs.init(SERVICE, endpoint=endpoint, environment="demo", capture_content="full")
    columns = (
        TextColumn("{task.description:34}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} calls"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=console.quiet) as progress:
        begun = asyncio.run(_play_calls(plan, progress, watcher))
    llmobs.flush()
    return begun


async def _play_calls(plan: Plan, progress: Progress, watcher: _Watcher | None) -> float:
    task = progress.add_task("learning what is normal", total=len(plan.calls))
    begun = time.monotonic()
    running: set[asyncio.Task[None]] = set()
    for n_calls, call in enumerate(plan.calls):
        delay = begun + call.at_s - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        turn = asyncio.create_task(_turn(call))
        running.add(turn)
        turn.add_done_callback(running.discard)
        if n_calls % 100 == 0:
            share = call.at_s / plan.length_s
            n_alerts = len(watcher.seen) if watcher else 0
            progress.update(
                task, completed=n_calls, description=f"{_phase(share)} · {n_alerts} alerts"
            )
    await asyncio.gather(*running)
    progress.update(task, completed=len(plan.calls), description="played")
    return begun


async def _turn(call: Any) -> None:
    with suppress(ProviderError):  # an incident; the user would see an apology
        await answer(call)


def _phase(share: float) -> str:
    for incident in INCIDENTS:
        if incident.start <= share < incident.start + incident.length:
            return f"[red]{incident.name}[/red] at {incident.feature}"
    return "learning what is normal" if share < LEARNING_SHARE else "watching"


# --- watching and reporting


class _Watcher:
    """Notes when each alert is first to be seen through the API."""

    def __init__(self, api: Api) -> None:
        self.seen: dict[str, tuple[float, dict[str, Any]]] = {}
        self._api = api
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def summary(self, alert: dict[str, Any]) -> str:
        """Return what the alert's first finding says, in a sentence."""
        return str(self._api.get(f"findings/{alert['finding_id']}")["summary"])

    def _run(self) -> None:
        while not self._stopping.wait(POLL_S):
            try:
                alerts = self._api.get("alerts")["alerts"]
            except LlmobsError:
                continue  # the engine is busy or being restarted; the next look will tell
            now = time.monotonic()
            for alert in alerts:
                self.seen.setdefault(alert["id"], (now, alert))


def _report(plan: Plan, watcher: _Watcher, started: float, begun: float, page_url: str) -> Report:
    seen = sorted(watcher.seen.values(), key=lambda item: item[0])
    explained: set[str] = set()
    detections = []
    for incident in INCIDENTS:
        start = begun + incident.start * plan.length_s
        # What an incident sets off may take as long again as the incident lasts.
        end = start + 2 * incident.length * plan.length_s + SETTLE_S
        here = [
            (at, alert)
            for at, alert in seen
            if alert["feature"] == incident.feature and start <= at <= end
        ]
        explained |= {alert["id"] for _, alert in here}
        hits = [(at, alert) for at, alert in here if alert["monitor"] in incident.monitors]
        at, alert = hits[0] if hits else (None, None)
        delay_s = None if at is None else at - start
        summary = watcher.summary(alert) if alert else ""
        detections.append(Detection(incident, start - begun, alert, delay_s, summary))
    of_the_trace = [
        alert
        for at, alert in seen
        if alert["id"] not in explained and _is_of_the_trace(alert, (at - begun) / plan.length_s)
    ]
    explained |= {alert["id"] for alert in of_the_trace}
    first_incident = begun + min(incident.start for incident in INCIDENTS) * plan.length_s
    return Report(
        detections,
        of_the_trace=of_the_trace,
        early=[alert for at, alert in seen if at < first_incident and alert["id"] not in explained],
        unexplained=[
            alert for at, alert in seen if at >= first_incident and alert["id"] not in explained
        ],
        first_alert_s=seen[0][0] - started if seen else None,
        n_calls=len(plan.calls),
        page_url=page_url,
        sdk=asdict(llmobs.status()),
    )


def _is_of_the_trace(alert: dict[str, Any], share: float) -> bool:
    return any(
        alert["feature"] == change.feature
        and alert["monitor"] in change.monitors
        and share >= change.start
        for change in OF_THE_TRACE
    )


def _print_report(report: Report) -> None:
    console = Console(highlight=False)
    for detection in report.detections:
        what = f"{detection.incident.name} at {detection.incident.feature}"
        head = f"{what:34} began at {detection.started_s:4.0f} s   "
        if detection.alert is None:
            console.print(f"{head}[red]missed[/red]")
            continue
        console.print(
            f"{head}[green]detected after {detection.delay_s:.1f} s[/green]"
            f" by {detection.alert['monitor']}"
        )
        console.print(f"    {detection.summary}", style="dim", markup=False)
    n_found = sum(d.alert is not None for d in report.detections)
    console.print(
        f"\n{n_found} of {len(report.detections)} incidents detected, "
        f"{len(report.early)} alerts before any incident, "
        f"{len(report.unexplained)} without an incident of their own"
    )
    for alert in report.of_the_trace:
        console.print(
            f"    also found, in the trace itself: {alert['title']}", style="dim", markup=False
        )
    for alert in (*report.early, *report.unexplained):
        console.print(f"    {alert['title']}", style="yellow", markup=False)
    if report.first_alert_s is not None:
        console.print(f"first alert {report.first_alert_s:.0f} s after the command was given")
