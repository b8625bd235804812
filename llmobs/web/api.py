"""The JSON API: one method an address, each a few calls of the store.

Every method takes a validated `Query` (and an id from the path) and returns plain data. They
are synchronous, as the store is; `app` runs them in threads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final, Literal, TypeAlias, cast

from llmobs.analyzer.store.base import EXPORTED, NOTHING, Exported, Owner, Row, State, Store
from llmobs.errors import ConfigurationError, LlmobsError, StoreError
from llmobs.web.errors import BadQueryError, NotFoundError, UnavailableError
from llmobs.web.health import health
from llmobs.web.query import DIMENSIONS, MAX_LIMIT, Query, Window, step_s

__all__ = [
    "ACTIONS",
    "BY_ID",
    "FILES",
    "LISTS",
    "OWNERS",
    "Api",
    "Calibrate",
    "Erase",
    "Ready",
    "Rescore",
]

Ready: TypeAlias = Callable[[], tuple[bool, dict[str, Any]]]
Erase: TypeAlias = Callable[[Owner, str], Row]
Rescore: TypeAlias = Callable[[int, int, Sequence[str], int], Row]
Calibrate: TypeAlias = Callable[[int, int, float, Sequence[str]], list[Row]]

MAX_SPANS: Final = 2_000  # of one trace: nobody reads more, and it would be many MB

COST_KEYS: Final = (
    "service", "environment", "feature", "provider", "request_model", "agent", "session_id",
    "user_id", "prompt_name", "prompt_version", "day", "hour",
)  # fmt: skip

_EXPORT_NAME: Final = re.compile(
    rf"(?P<table>{'|'.join(EXPORTED)})-(?P<day>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})\.parquet"
)
_GONE_HINT: Final = "It may be older than what is kept, or not stored yet."


class Api:
    """What can be asked.

    Args:
        store: Spans, scores and metrics.
        state: Monitors, findings and alerts.
        ready: Whether the engine works, with details.
        metrics: The engine's own metrics in Prometheus' text format.
        erase: Forgets a user or a session; None: another process does.
        rescore: Scores the next spans of a window again; None: another process does.
        calibrate: Finds thresholds of scores; None: nobody here does.
    """

    def __init__(
        self,
        store: Store,
        state: State,
        ready: Ready,
        metrics: Callable[[], bytes],
        erase: Erase | None = None,
        rescore: Rescore | None = None,
        calibrate: Calibrate | None = None,
    ) -> None:
        self._store = store
        self._state = state
        self._ready = ready
        self._metrics = metrics
        self._erase = erase
        self._rescore = rescore
        self._calibrate = calibrate

    def overview(self, query: Query) -> Row:
        """Return the totals of the window and of the one before it."""
        window = query.window()
        filters = query.filters(*DIMENSIONS)
        return {
            "window": window.to_json(),
            "current": self._overview(window, filters),
            "previous": self._overview(window.previous(), filters),
        }

    def series(self, query: Query) -> Row:
        """Return one row a step; the last step may not be over yet."""
        window = query.window()
        step = query.whole("step", step_s(window), low=60, high=7 * 86_400)
        grid = _aligned(window, step)
        rows = self._store.series(grid.since_ns, grid.until_ns, step, **query.filters(*DIMENSIONS))
        return {"window": window.to_json(), "step_s": step, "rows": rows}

    def sessions(self, query: Query) -> Row:
        """Return sessions; `q` is looked for in ids, users, features and models."""
        window = query.window()
        limit = query.limit()
        order = query.choice("order", ("last", "cost", "calls", "errors"), "last")
        needle = (query.text("q") or "").casefold()
        rows = self._store.sessions(
            window.since_ns,
            window.until_ns,
            MAX_LIMIT if needle else limit,
            cast(Literal["last", "cost", "calls", "errors"], order),
            **query.filters(*DIMENSIONS, "user_id"),
        )
        found = [row for row in rows if needle in _session_text(row)]
        return {"window": window.to_json(), "sessions": found[:limit]}

    def session(self, _query: Query, session_id: str) -> Row:
        """Return one session with its traces."""
        session = self._store.session(session_id)
        if session is None:
            raise NotFoundError(f"no session {session_id!r}", hint=_GONE_HINT)
        return session

    def traces(self, query: Query) -> Row:
        """Return the newest traces; `q` is looked for in what was asked and answered."""
        window = query.window()
        filters = query.filters(*DIMENSIONS, "session_id", "user_id", "flag")
        if query.choice("error", ("0", "1"), "0") == "1":
            filters["error"] = "1"
        if (text := query.text("q")) is not None:
            filters["text"] = text
        rows = self._store.traces(window.since_ns, window.until_ns, query.limit(), **filters)
        return {"window": window.to_json(), "traces": rows}

    def trace(self, _query: Query, trace_id: str) -> Row:
        """Return the spans of one trace by start."""
        is_id = len(trace_id) == 32 and set(trace_id) <= set("0123456789abcdef")
        spans = self._store.trace(trace_id) if is_id else []
        if not spans:
            raise NotFoundError(f"no trace {trace_id!r}", hint=_GONE_HINT)
        return {"trace_id": trace_id, "n_spans": len(spans), "spans": spans[:MAX_SPANS]}

    def cost(self, query: Query) -> Row:
        """Return what was paid for each value of one key, dearest first."""
        window = query.window()
        by = query.choice("by", COST_KEYS, "feature")
        rows = self._store.cost(window.since_ns, window.until_ns, by)
        return {"window": window.to_json(), "by": by, "rows": rows[: query.limit()]}

    def dimensions(self, query: Query) -> Row:
        """Return the values that filters can take in a window."""
        window = query.window()
        values = self._store.dimensions(window.since_ns, window.until_ns)
        return {name: list(values.get(name, ())) for name in DIMENSIONS}

    def scores(self, query: Query) -> Row:
        """Return each score of the window beside the one before it."""
        window = query.window()
        filters = query.filters(*DIMENSIONS)
        before = {
            (row["name"], row["target"]): row
            for row in self._overview(window.previous(), filters)["scores"]
        }
        rows = [
            {**row, "previous": before.get((row["name"], row["target"]))}
            for row in self._overview(window, filters)["scores"]
        ]
        return {"window": window.to_json(), "rows": rows}

    def monitors(self, query: Query) -> Row:
        """Return how every monitor stands; with `history=0` without its course, which is long."""
        wanted = query.filters("service", "feature", "kind", "state")
        rows = [row for row in self._state.statuses() if _has(row, wanted)]
        if query.choice("history", ("0", "1"), "1") == "0":
            rows = [{**row, "history": []} for row in rows]
        return {"monitors": rows}

    def findings(self, query: Query) -> Row:
        """Return findings, newest first."""
        window = query.window("7d")
        wanted = query.filters("service", "environment", "feature", "monitor", "level")
        rows = [
            row
            for finding in self._state.findings(window.since_ns, MAX_LIMIT)
            if finding.at_ns < window.until_ns and _has(row := finding.to_json(), wanted)
        ]
        return {"window": window.to_json(), "findings": rows[: query.limit()]}

    def finding(self, _query: Query, finding_id: str) -> Row:
        """Return one finding with its evidence."""
        finding = self._state.finding(finding_id)
        if finding is None:
            raise NotFoundError(f"no finding {finding_id!r}", hint=_GONE_HINT)
        return finding.to_json()

    def alerts(self, query: Query) -> Row:
        """Return alerts, newest first."""
        state = query.choice("state", ("any", "firing", "resolved"), "any")
        wanted = query.filters("service", "feature", "monitor", "severity")
        alerts = self._state.alerts(None if state == "any" else state, MAX_LIMIT)
        rows = [row for alert in alerts if _has(row := alert.to_json(), wanted)]
        return {"alerts": rows[: query.limit(200)]}

    def metrics(self, query: Query) -> Row:
        """Return a stored OTLP metric, such as ``process.cpu.utilization``."""
        window = query.window()
        name = query.text("name") or "process.cpu.utilization"
        step = query.whole("step", step_s(window), low=60, high=7 * 86_400)
        grid = _aligned(window, step)
        rows = self._store.metric_series(name, grid.since_ns, grid.until_ns, step)
        return {"window": window.to_json(), "name": name, "step_s": step, "rows": rows}

    def export(self, query: Query) -> Row:
        """Return what an export of a window consists of; each file is then asked for by name."""
        window = query.window()
        wanted = (query.text("what") or ",".join(EXPORTED)).split(",")
        unknown = sorted(set(wanted) - set(EXPORTED))
        if unknown:
            raise BadQueryError(
                f"what={unknown[0]!r} is not known", hint=f"Use some of: {', '.join(EXPORTED)}."
            )
        what = cast(Sequence[Exported], wanted)
        files = self._store.export_files(window.since_ns, window.until_ns, what)
        return {
            "window": window.to_json(),
            "files": [
                {"name": file.name, "table": file.table, "rows": file.n_rows} for file in files
            ],
        }

    def export_file(self, query: Query, name: str) -> Iterator[bytes]:
        """Return one file of an export as Parquet, piece by piece."""
        window, known = query.window(), _EXPORT_NAME.fullmatch(name)
        if known:
            day = Window.of_day(known["day"])
            files = self._store.export_files(
                max(window.since_ns, day.since_ns),
                min(window.until_ns, day.until_ns),
                [cast(Exported, known["table"])],
            )
            if files:
                return self._store.export_parts(files[0])
        raise NotFoundError(f"no rows for {name!r} in that window", hint=_GONE_HINT)

    def erase(self, owner: Owner, name: str) -> Row:
        """Forget a user or a session, and say what was found of it."""
        if self._erase is None:
            raise NotFoundError(
                "this process can not delete", hint="Ask the one with the role watch."
            )
        if not name:
            raise BadQueryError(f"the id of the {owner} is empty", hint="It stands in the path.")
        try:
            return {owner: name, **self._erase(owner, name)}
        except StoreError:
            raise
        except LlmobsError as error:
            raise UnavailableError(
                str(error), hint="It is noted, and nothing more comes in."
            ) from error

    def rescore(self, query: Query) -> Row:
        """Score the next spans of a window again, and say how far it has come.

        Ask again with the `after` and the window of the answer, until `after` is -1.
        """
        if self._rescore is None:
            raise NotFoundError(
                "this process does not score", hint="Ask the one with the role all, or a worker."
            )
        window = query.window()
        after = query.whole("after", NOTHING, low=0, high=2**63 - 1)
        with _known_scorers():
            row = self._rescore(window.since_ns, window.until_ns, _names(query), after)
        return {"window": window.to_json(), **row}

    def calibration(self, query: Query) -> Row:
        """Return the threshold of each score that a share (`fpr`) of the window's texts crosses."""
        if self._calibrate is None:
            raise NotFoundError("this process has no scorers", hint="Ask the one that scores.")
        window = query.window("7d")
        share = query.share("fpr", 0.01)
        with _known_scorers():
            rows = self._calibrate(window.since_ns, window.until_ns, share, _names(query))
        return {"window": window.to_json(), "fpr": share, "rows": rows}

    def status(self, query: Query) -> Row:
        """Return how the engine stands, what its metrics say of it, and how much it keeps."""
        ready, details = self._ready()
        return {
            "version": version("llmobs"),
            "now_ms": query.now_ns // 1_000_000,
            "ready": ready,
            "details": details,
            "health": health(self._metrics(), query.now_ns / 1e9),
            "sizes": self._store.sizes(),
        }

    def _overview(self, window: Window, filters: Mapping[str, str]) -> Row:
        return self._store.overview(window.since_ns, window.until_ns, **filters)


_WINDOW: Final = frozenset({"since", "until"})
_FILTERED: Final = _WINDOW | set(DIMENSIONS)

LISTS: Final[Mapping[str, tuple[Callable[[Api, Query], Row], frozenset[str]]]] = {
    "overview": (Api.overview, _FILTERED),
    "series": (Api.series, _FILTERED | {"step"}),
    "sessions": (Api.sessions, _FILTERED | {"q", "order", "limit", "user_id"}),
    "traces": (
        Api.traces,
        _FILTERED | {"q", "limit", "session_id", "user_id", "flag", "error"},
    ),
    "cost": (Api.cost, _WINDOW | {"by", "limit"}),
    "dimensions": (Api.dimensions, _WINDOW),
    "scores": (Api.scores, _FILTERED),
    "monitors": (Api.monitors, frozenset({"service", "feature", "kind", "state", "history"})),
    "findings": (
        Api.findings,
        _WINDOW | {"service", "environment", "feature", "monitor", "level", "limit"},
    ),
    "alerts": (
        Api.alerts,
        frozenset({"state", "service", "feature", "monitor", "severity", "limit"}),
    ),
    "calibration": (Api.calibration, _WINDOW | {"fpr", "scorer"}),
    "metrics": (Api.metrics, _WINDOW | {"name", "step"}),
    "export": (Api.export, _WINDOW | {"what"}),
    "status": (Api.status, frozenset()),
}
"""Address below ``/api/v1/`` to method and the parameters that it understands."""

OWNERS: Final[Mapping[str, Owner]] = {"users": "user", "sessions": "session"}
"""Address before ``/{id}`` that can be deleted to what the id is of."""

ACTIONS: Final[Mapping[str, tuple[Callable[[Api, Query], Row], frozenset[str]]]] = {
    "rescore": (Api.rescore, _WINDOW | {"scorer", "after"}),
}
"""Address that does something, by POST, to method and parameters; for who may delete."""

FILES: Final[Mapping[str, tuple[Callable[[Api, Query, str], Iterator[bytes]], frozenset[str]]]] = {
    "export": (Api.export_file, _WINDOW),
}
"""Address before ``/{name}`` of a file that is streamed to method and parameters."""

BY_ID: Final[Mapping[str, Callable[[Api, Query, str], Row]]] = {
    "sessions": Api.session,
    "traces": Api.trace,
    "findings": Api.finding,
}
"""Address before ``/{id}`` to method; none takes a parameter."""


@contextmanager
def _known_scorers() -> Iterator[None]:
    """Answer to a name that no scorer has as to any other wrong parameter."""
    try:
        yield
    except ConfigurationError as error:
        raise BadQueryError(str(error), hint="`llmobs scorers list` shows them.") from error


def _names(query: Query) -> list[str]:
    return [name for name in (query.text("scorer") or "").split(",") if name]


def _aligned(window: Window, step: int) -> Window:
    """Move the begin back to a whole step, so that the first point counts all of its step."""
    step_ns = step * 1_000_000_000
    return Window(window.since_ns // step_ns * step_ns, window.until_ns)


def _has(row: Row, wanted: Mapping[str, str]) -> bool:
    return all(row[name] == value for name, value in wanted.items())


def _session_text(row: Row) -> str:
    parts = [row["session_id"], row["user_id"], row["service"], *row["features"], *row["models"]]
    return "\n".join(part for part in parts if part).casefold()
