"""`llmobs doctor`: how a running server is, in words, and what to do about what is not well."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import click

from llmobs.cli import options
from llmobs.errors import LlmobsError
from llmobs.web.client import Api

__all__ = ["Check", "diagnose", "doctor"]

# A loop that has nothing to do turns several times a second; a step with a full batch of long
# texts takes some seconds.
SLOW_CYCLE_S: Final = 15.0
DEAD_CYCLE_S: Final = 60.0
# A sender waits ten seconds at most; what is older than a minute nobody calls live any more.
SLOW_LOG_S: Final = 30.0
STUCK_LOG_S: Final = 300.0
SLOW_STAGE_S: Final = 60.0
STUCK_STAGE_S: Final = 600.0
# ClickHouse slows inserts at 1,000 parts a partition, and refuses them at 3,000.
MANY_PARTS: Final = 300
TOO_MANY_PARTS: Final = 1000
SLOW_LAG_S: Final = 60.0
# Below, the alert LlmCallsMissing fires: cost and rates are too low by so much.
COMPLETE: Final = 0.999
QUIET_S: Final = 3600.0
SKEW_S: Final = 5.0
LARGE_SPAN_BYTES: Final = 4096.0

SNIPPET: Final = """\
import llmobs

llmobs.init(service="my-app")

@llmobs.observe(feature="chat")
def answer(question: str) -> str:
    ...  # your call to a model

answer("Does it work?")"""

_FIND: Final = (
    "start one with `llmobs up`; --url and --token (LLMOBS_URL, LLMOBS_WEB_TOKEN) say which to ask"
)

# What a refused request means, and what to do: about the sender, or about this server.
_REFUSED: Final[Mapping[str, tuple[str, str]]] = {
    "invalid": ("were neither OTLP nor feedback", "look at what the sender posts, and where to"),
    "unauthenticated": (
        "showed no key that is known",
        'give the sender one of ingest_keys: OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer …"',
    ),
    "forbidden": (
        "showed a key that may not send this, or came from a web page that may not",
        "give the sender another key; name a page's origin in cors_origins",
    ),
    "not_found": (
        "went to a path that is not there",
        "point the sender at the root (http://host:4318); it adds /v1/traces itself",
    ),
    "method": ("were no POST", "export with OTLP/HTTP or OTLP/gRPC"),
    "too_slow": ("came too slowly", "look at the network between the sender and here"),
    "too_large": (
        "were larger than allowed",
        "send smaller batches (OTEL_BSP_MAX_EXPORT_BATCH_SIZE) or raise max_request_bytes",
    ),
    "unsupported": (
        "were in a format that is not read",
        "send protobuf or JSON, plain or gzip",
    ),
    "over_quota": ("were over the sender's quota", "raise the quota, or send less"),
    "busy": (
        "found too many others under way and were told to come again",
        "nothing if it was one burst; else give the server more CPU",
    ),
    "failed": ("failed here", "read the server's log: it holds the reason"),
    "overloaded": (
        "found the log full or the disk failing and were told to come again",
        "see the log below; free space in the data folder or raise log_max_bytes",
    ),
}
_OUR_FAULT: Final = frozenset({"failed", "overloaded"})

_UNREACHED: Final[Mapping[str, str]] = {
    "notify": "try each channel: llmobs alerts test CHANNEL",
    "grafana": "try it by hand: llmobs grafana diff --url URL",
    "otlp": "look at otlp_endpoint in the settings, and whether it answers",
}

# What was acknowledged and is not stored, and what to do.
_LOST: Final[Mapping[str, tuple[str, str]]] = {
    "corrupt": (
        "stretches of the log were damaged on disk; what they held is in aside/",
        "look at the disk of the data folder, and at its kernel's log",
    ),
    "no_room": (
        "requests could not be read, and aside/ had no room for them",
        "empty aside/ of the data folder once you looked at it",
    ),
    "expired": (
        "records were gone from Kafka before they were read",
        "give the topics a longer retention, and the workers more CPU",
    ),
}

# What waits for a stage, why, and what to do.
_STAGES: Final[Mapping[str, tuple[str, str]]] = {
    "ingest": ("to be stored", "see the ingest loop; if it is well: more CPU, or more workers"),
    "scoring": (
        "to be scored",
        "see the scoring loop; if it is well: fewer scorers, or more workers",
    ),
    "analysis": (
        "to be watched",
        "see the analysis loop; if it is well: more CPU, or fewer scorers in the settings",
    ),
}

_LOOPS: Final[Mapping[str, str]] = {
    "ingest": "what comes in waits in the log and is not lost",
    "scoring": "spans are kept, but not scored",
    "analysis": "spans are kept, but not scored or watched",
    "announcer": "nobody is told of an alert",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at, in a word or two.
        state: ``warning`` works and wants a look; ``problem`` does not work.
        words: One sentence.
        next_step: What to do; empty where nothing is.
    """

    name: str
    state: Literal["ok", "warning", "problem"]
    words: str
    next_step: str = ""


@click.command()
@options.as_json
@options.url
@options.token
def doctor(url: str, token: str | None, as_json: bool) -> None:
    """Say what is well, what is not and what to do; exit 1 when there is a problem."""
    checks = list(_ask(Api(url, token)))
    for check in checks:
        click.echo(json.dumps(asdict(check), ensure_ascii=False) if as_json else _line(check))
    n_problems, n_warnings = (_count(checks, state) for state in ("problem", "warning"))
    click.echo(f"{_plural(n_problems, 'problem')}, {_plural(n_warnings, 'warning')}", err=True)
    if n_problems:
        raise click.exceptions.Exit(1)


def diagnose(
    status: Mapping[str, Any],
    monitors: list[dict[str, Any]],
    *,
    now_ms: float,
) -> Iterator[Check]:
    """Judge what a server says of itself.

    Args:
        status: The answer of ``/api/v1/status``.
        monitors: Rows of ``/api/v1/monitors``.
        now_ms: The time here when `status` was answered, in ms since 1970.
    """
    health, sizes = status["health"], status["sizes"]
    yield _server(status)
    yield from _parts(status["details"], health["heartbeat_age_s"])
    yield from _requests(health["requests"])
    if "receiver" in status["details"]:
        yield _log(health["log"])
    yield from _backlogs(health)
    yield from _items(health)
    yield from _losses(health["lost"])
    if "analysis" in status["details"]:
        yield from _completeness(health["completeness"], health["missing"])
    yield _lag(health["lag_s"], sizes["spans"])
    yield from _failures(health)
    yield _monitors(monitors)
    yield _store(sizes)
    yield from _engine(health["engine"])
    yield _traffic(sizes, status["now_ms"])
    yield _clock((now_ms - status["now_ms"]) / 1000)


def _ask(api: Api) -> Iterator[Check]:
    try:
        begun_ms = time.time() * 1000
        status = api.get("status")
        now_ms = (begun_ms + time.time() * 1000) / 2  # the server looked at its clock in between
        monitors = api.get("monitors", history="0")["monitors"]
    except LlmobsError as error:
        yield Check("server", "problem", str(error), _FIND)
        return
    if "completeness" not in status.get("health", {}):
        words = f"llmobs {status['version']} there is older than this command"
        yield Check("server", "problem", words, "update llmobs there and restart it")
        return
    yield from diagnose(status, monitors, now_ms=now_ms)


def _line(check: Check) -> str:
    line = f"{check.state:8} {check.name:18} {check.words}"
    if not check.next_step:
        return line
    arrow, blank = f"\n{'':27} → ", f"\n{'':30}"
    return line + arrow + check.next_step.replace("\n", blank)


def _plural(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def _count(checks: list[Check], state: str) -> int:
    return sum(check.state == state for check in checks)


def _server(status: Mapping[str, Any]) -> Check:
    if status["ready"]:
        return Check("server", "ok", f"llmobs {status['version']} is ready")
    return Check(
        "server", "problem", f"llmobs {status['version']} is not ready", "see its parts below"
    )


def _parts(details: Mapping[str, Any], ages_s: Mapping[str, float]) -> Iterator[Check]:
    for name, consequence in _LOOPS.items():
        if name in details:  # a worker does not watch, and who watches takes nothing
            yield _loop(f"{name} loop", details[name], ages_s.get(name), consequence)
    if (reason := details.get("log", "ok")) != "ok":
        yield Check(
            "log reader",
            "problem",
            f"stands still ({reason}); what waits there is kept, and not stored",
            "mend what it names; reading goes on by itself",
        )
    receiver = details.get("receiver")
    if receiver == "ok":
        yield Check("receiver", "ok", "takes OTLP")
    elif receiver is not None:
        yield Check(
            "receiver",
            "problem",
            f"is {receiver}: senders are not heard",
            "read the server's log for why it ended; it is started again by itself",
        )


def _loop(name: str, state: str, age_s: float | None, consequence: str) -> Check:
    if state != "ok":
        return Check(
            name,
            "problem",
            f"fails ({state}), and {consequence}",
            "it tries again by itself; the server's log has the traceback",
        )
    if age_s is None:
        return Check(name, "warning", "has not finished a cycle yet", "ask again in a minute")
    words = f"finished a cycle {_span(age_s)} ago"
    if age_s > DEAD_CYCLE_S:
        return Check(name, "problem", f"{words}: {consequence}", "restart the server")
    if age_s > SLOW_CYCLE_S:
        return Check(name, "warning", words, "ask again; if it grows, look at CPU and disk")
    return Check(name, "ok", words)


def _requests(outcomes: Mapping[str, int]) -> Iterator[Check]:
    accepted = outcomes.get("accepted", 0)
    refused = {name: n for name, n in outcomes.items() if name != "accepted"}
    yield Check(
        "requests",
        "ok",
        f"{accepted:,} accepted since the start, {sum(refused.values()) or 'none'} refused",
    )
    for outcome, n in refused.items():
        words, next_step = _REFUSED.get(outcome, ("were refused", "read the server's log"))
        state: Literal["warning", "problem"] = "problem" if outcome in _OUR_FAULT else "warning"
        yield Check(f"refused: {outcome}", state, f"{n:,} requests {words}", next_step)


def _log(log: Mapping[str, float]) -> Check:
    if not log:
        return Check("log", "problem", "the receiver says nothing about it", "see the receiver")
    if n := int(log.get("n_disk_errors", 0)):
        return Check(
            "log",
            "problem",
            f"the disk refused {n:,} writes since the start; senders were told to come again",
            "look at the disk of the data folder: full, read-only or failing",
        )
    if "limit_bytes" not in log:
        return Check(
            "log", "ok", f"is a broker; {_size(log.get('queue_bytes', 0))} wait to go there"
        )
    limit_bytes = log["limit_bytes"]
    if not log["n_segments"]:
        return Check("log", "ok", f"nothing waits to be read (room for {_size(limit_bytes)})")
    share = log["size_bytes"] / limit_bytes
    words = (
        f"{_size(log['size_bytes'])} wait to be read ({share:.0%} of {_size(limit_bytes)}), "
        f"the oldest for {_span(log['oldest_s'])}"
    )
    next_step = "see the ingest loop; if it is well, the server needs more CPU or a faster disk"
    if share > 0.9 or log["oldest_s"] > STUCK_LOG_S:
        return Check("log", "problem", words, next_step)
    if share > 0.5 or log["oldest_s"] > SLOW_LOG_S:
        return Check("log", "warning", words, next_step)
    return Check("log", "ok", words)


def _backlogs(health: Mapping[str, Any]) -> Iterator[Check]:
    for stage, backlog in health["backlog"].items():
        if stage == "ingest" and "limit_bytes" in health["log"]:
            continue  # the log itself was looked at
        why, next_step = _STAGES[stage]
        n, oldest_s = int(backlog["n_segments"]), backlog["oldest_s"]
        words = f"{_plural(n, 'segment')} {'waits' if n == 1 else 'wait'} {why}"
        if n:
            words += f", the oldest for {_span(oldest_s)}"
        if records := health["engine"].get("lag_records", 0) if stage == "ingest" else 0:
            words += f"; {records:,.0f} records are still in Kafka"
        if oldest_s > SLOW_STAGE_S:
            state: Literal["warning", "problem"] = (
                "problem" if oldest_s > STUCK_STAGE_S else "warning"
            )
            yield Check(f"{stage} backlog", state, words, next_step)
        else:
            yield Check(f"{stage} backlog", "ok", words)


def _losses(lost: Mapping[str, int]) -> Iterator[Check]:
    for reason, n in lost.items():
        words, next_step = _LOST.get(reason, (reason, "read the server's log"))
        yield Check(f"lost: {reason}", "problem", f"{n:,} {words}", next_step)


def _completeness(ratios: Mapping[str, float], missing: Mapping[str, float]) -> Iterator[Check]:
    if not ratios:
        yield Check("completeness", "ok", "not known: no producer numbered its spans today")
    for service, ratio in sorted(ratios.items()):
        name = f"seen: {service or '(no name)'}"
        n = int(missing[service])
        if ratio == 1:
            yield Check(name, "ok", "all spans of the last day came in")
            continue
        # Rounded down: 100 % is said of nothing that lost a span.
        share = math.floor(ratio * 10_000) / 10_000
        yield Check(
            name,
            "warning" if ratio < COMPLETE else "ok",
            f"{share:.2%} of the spans of the last day came in "
            f"({n:,} missing since counting began)",
            "in the app, llmobs.status() counts what was dropped; docs/runbooks.md#missing-calls",
        )


def _engine(engine: Mapping[str, float]) -> Iterator[Check]:
    if "parts" not in engine:
        yield Check(
            "store engine",
            "problem",
            "does not answer",
            "see the loops above; the server's log has the reason",
        )
        return
    parts, merges, mutations = (int(engine[name]) for name in ("parts", "merges", "mutations"))
    words = f"{parts:,} parts in the fullest partition, {_plural(merges, 'merge')} under way"
    if mutations:
        words += f", {_plural(mutations, 'deletion')} under way"
    next_step = (
        "merges do not keep up: more CPU or a faster disk, or larger segments (segment_max_age_s)"
    )
    if parts > MANY_PARTS:
        state: Literal["warning", "problem"] = "problem" if parts > TOO_MANY_PARTS else "warning"
        yield Check("store engine", state, words, next_step)
    else:
        yield Check("store engine", "ok", words)


def _items(health: Mapping[str, Any]) -> Iterator[Check]:
    items, repairs = health["items"], health["repairs"]
    stored = f"{items.get('accepted', 0):,} stored, {items.get('duplicate', 0):,} sent twice"
    if n := items.get("rejected", 0):
        yield Check(
            "items",
            "warning",
            f"{stored}; {n:,} could not be read and were set aside",
            "look at the files in aside/ of the data folder; docs/runbooks.md says how",
        )
    else:
        yield Check("items", "ok", f"{stored}, none set aside")
    if repairs:
        yield Check(
            "repairs",
            "warning",
            f"values were mended on the way in: {_list(repairs)}",
            "look at the producer that sends them: clocks, ids, durations, text encoding",
        )


def _lag(lag_s: float | None, n_spans: int) -> Check:
    if lag_s is None:
        words = "no batch since the start" if n_spans else "no span to analyze yet"
        return Check("analysis", "ok", words)
    words = f"the last batch was analyzed {_span(lag_s)} after its newest span ended"
    if lag_s > SLOW_LAG_S:
        return Check(
            "analysis",
            "warning",
            words,
            "nothing if the spans were sent late; else more CPU, or fewer scorers in the settings",
        )
    return Check("analysis", "ok", words)


def _failures(health: Mapping[str, Any]) -> Iterator[Check]:
    if scorers := health["scorer_failures"]:
        yield Check(
            "scorers",
            "warning",
            f"failed or took too long, so that their scores are missing: {_list(scorers)}",
            "read the server's log; raise scorer_timeout_s or leave them out of scorers",
        )
    else:
        yield Check("scorers", "ok", "none failed")
    for target, n in health["publish_failures"].items():
        yield Check(
            f"reach: {target}",
            "warning",
            f"{n:,} attempts failed since the start",
            _UNREACHED.get(target, "read the server's log"),
        )
    if not health["publish_failures"]:
        yield Check("reach", "ok", "everything that was to be told was told")
    if folded := health["folded_series"]:
        yield Check(
            "series",
            "warning",
            f"metrics had too many label values, the rest is under “(other)”: {_list(folded)}",
            "keep ids out of names of features, models and tools",
        )


def _monitors(rows: list[dict[str, Any]]) -> Check:
    if not rows:
        return Check("monitors", "ok", "none yet: they start once sessions come in")
    n = {state: sum(row["state"] == state for row in rows) for state in ("learning", "alarm")}
    words = f"{len(rows)}, of which {n['learning']} learn what is normal"
    if n["alarm"]:
        return Check(
            "monitors", "warning", f"{words} and {n['alarm']} are in alarm", "see: llmobs drift"
        )
    return Check("monitors", "ok", f"{words} and none is in alarm")


def _store(sizes: Mapping[str, Any]) -> Check:
    words = f"{sizes['spans']:,} spans in {_size(sizes['bytes_on_disk'])}"
    bytes_a_span = sizes["bytes_a_span"]
    if bytes_a_span is None or not sizes["spans"]:
        return Check("store", "ok", words)
    words += f", {_size(bytes_a_span)} a span"
    if bytes_a_span > LARGE_SPAN_BYTES:
        next_step = "if disk is short: a smaller retention_days, or capture less content"
        return Check("store", "warning", words, next_step)
    return Check("store", "ok", words)


def _traffic(sizes: Mapping[str, Any], now_ms: float) -> Check:
    if not sizes["spans"]:
        return Check("traffic", "warning", "no span came in yet", f"send one:\n{SNIPPET}")
    age_s = max(0.0, (now_ms - sizes["newest_ms"]) / 1000)
    words = f"the newest span is from {_span(age_s)} ago"
    if age_s > QUIET_S:
        next_step = "if your app is in use: does OTEL_EXPORTER_OTLP_ENDPOINT name this server?"
        return Check("traffic", "warning", words, next_step)
    return Check("traffic", "ok", words)


def _clock(ahead_s: float) -> Check:
    if abs(ahead_s) <= SKEW_S:
        return Check("clock", "ok", "server and this machine agree")
    side = "ahead of" if ahead_s > 0 else "behind"
    return Check(
        "clock",
        "warning",
        f"this machine is {_span(abs(ahead_s))} {side} the server: its spans are misplaced in time",
        "let both follow NTP (timedatectl set-ntp true)",
    )


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in sorted(counts.items()))


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} GB"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"
