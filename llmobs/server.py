"""The composition root: reads the settings once, builds every part, runs the processes.

`llmobs up` is a supervisor with two children. The *receiver* takes OTLP and writes the log;
the *engine* owns the store and runs the loops and the page. They meet at the log's folder
alone, so each may be killed and restarted while the other goes on. Children are spawned,
never forked: a chDB query in a forked child hangs.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import multiprocessing.process
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any, Final

from llmobs.errors import ConfigurationError, LlmobsError
from llmobs.settings import Settings, ThresholdSetting

if TYPE_CHECKING:
    from llmobs.access import Keys
    from llmobs.analyzer.log.base import LogReader
    from llmobs.analyzer.notify import Announcer
    from llmobs.analyzer.pipeline import Analysis, Loop, ScoredBatches
    from llmobs.analyzer.publish import (
        EvaluationPublisher,
        GrafanaPublisher,
        Metrics,
        OtlpPublisher,
    )
    from llmobs.analyzer.receive.base import Sink
    from llmobs.analyzer.score import Rule, ScoreStage
    from llmobs.analyzer.store.base import Owner, Row, State, Store

__all__ = ["Server", "configure_logging", "restart_delay_s", "run_engine", "run_receiver"]

logger = logging.getLogger(__name__)

READY_TIMEOUT_S: Final = 60.0
DRAIN_TIMEOUT_S: Final = 30.0
RESTART_DELAYS_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
CALM_S: Final = 60.0  # a child that lived this long starts over with the shortest delay


# --- the receiver process


def run_receiver(settings: Settings) -> None:
    """Take OTLP and write the log until SIGTERM; then drain and return."""
    from llmobs.analyzer.decode import check
    from llmobs.analyzer.receive import Limits, run

    configure_logging()
    _stop_with_parent()
    run(
        _log_writer(settings),
        check,
        keys=_keys(settings),
        host=settings.host,
        http_port=settings.http_port,
        grpc_port=settings.grpc_port,
        limits=Limits(
            max_packed_bytes=settings.max_request_bytes,
            max_unpacked_bytes=settings.max_unpacked_bytes,
        ),
        cors_origins=settings.cors_origins,
    )


def _keys(settings: Settings) -> Keys:
    from llmobs.access import Key, Keys, Quota, Role

    ingest = [Key(key.get_secret_value()) for key in settings.ingest_keys]
    feedback = [
        Key(
            key.get_secret_value(),
            role=Role.FEEDBACK,
            quota=Quota(spans_per_s=settings.feedback_per_s),
        )
        for key in settings.feedback_keys
    ]
    return Keys([*ingest, *feedback])


# --- the engine process


def run_engine(settings: Settings) -> None:
    """Run the loops and the page until SIGTERM; then store what the log holds and return."""
    # Before NumPy is imported. Our products are small: for them BLAS's threads wake, spin
    # between the calls, and take eight times the time of the product itself.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _keep_pandas_out()
    import uvicorn

    configure_logging()
    _stop_with_parent()
    engine = _Engine(settings)
    config = uvicorn.Config(
        engine.app, host=settings.host, port=settings.web_port, log_config=None, access_log=False
    )
    page = uvicorn.Server(config)
    # uvicorn raises the signal that ended it once more, with the handlers of before: without
    # these the process would end there and then, and not drain.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    engine.start()
    try:
        page.run()  # returns on SIGTERM or SIGINT
    finally:
        engine.stop()


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ImportError(name=fullname)


def _keep_pandas_out() -> None:
    """Let PyArrow find no pandas when it looks, with its first array: 40 MB for nothing here.

    chDB brings it along. A scorer of one's own may import it all the same.
    """
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)


class _Engine:
    """The loops of one role over one store, and the page."""

    def __init__(self, settings: Settings) -> None:
        from llmobs.analyzer.calibrate import Calibrator
        from llmobs.analyzer.decode import warm
        from llmobs.analyzer.health import Health
        from llmobs.analyzer.pipeline import Ingest, Loop, ScoredElsewhere, Scoring, Worker
        from llmobs.analyzer.publish import Metrics
        from llmobs.analyzer.score import ScoreStage, load_scorers, with_thresholds
        from llmobs.analyzer.store import open_state, open_store
        from llmobs.measures.cost import PriceBook
        from llmobs.web.app import create_app

        self._settings = settings
        settings.data.mkdir(parents=True, exist_ok=True)
        self._store = open_store(
            settings.store_url,
            memory_limit_bytes=settings.store_memory_bytes,
            retention_days=settings.retention_days,
            texts_days=settings.texts_days,
            rollups_days=settings.rollups_days,
            text_index=settings.text_index,
        )
        self._state = open_state(settings.data / "state.db")
        self._metrics = Metrics()
        self._otlp = _otlp(settings, self._metrics)
        self._evaluations = _evaluations(settings, self._metrics)
        publish = self._evaluations.put if self._evaluations else None
        names = None if settings.scorers == ("all",) else settings.scorers
        scorers = with_thresholds(
            load_scorers(names, settings.scorer_files), _rules(settings.thresholds)
        )
        stage = ScoreStage(scorers, time_box_s=settings.scorer_timeout_s)
        self._log: LogReader | None = None
        self._analysis: Analysis | None = None
        self._loops: list[Loop] = []

        def loop(name: str, step: Callable[[], int], idle_s: float) -> None:
            self._loops.append(Loop(name, step, idle_s=idle_s, heartbeat=self._metrics.heartbeat))

        if settings.role != "watch":
            self._log = _log_reader(settings, self._store)
            prices = PriceBook(overrides=settings.prices)
            ingest = Ingest(self._log, self._store, prices, self._metrics)
            loop("ingest", ingest.step, 0.05)
        if settings.role == "worker":
            scoring = Scoring(self._store, stage, publish)
            worker = Worker(self._store, scoring, self._metrics, batch=settings.analysis_batch)
            loop("scoring", worker.step, 0.1)
            health = Health(self._store, self._log, "scoring", self._store.scored)
        else:
            batches = (
                Scoring(self._store, stage, publish)
                if settings.role == "all"
                else ScoredElsewhere(self._store, stage)
            )
            self._analysis = _analysis(settings, self._state, batches, self._metrics)
            announcer = _announcer(settings, self._state, self._metrics)
            loop("analysis", self._analysis.step, 0.1 if settings.role == "all" else 1.0)
            loop("announcer", lambda: announcer.step(time.time_ns()), 0.5)
            health = Health(self._store, self._log, "analysis", self._state.cursor)
        self._metrics.watch(health)
        web_token, admin_token = settings.web_token, settings.admin_token
        self.app = create_app(
            self._store,
            self._state,
            metrics=self._render_metrics,
            ready=self._ready,
            token=web_token.get_secret_value() if web_token else None,
            admin_token=admin_token.get_secret_value() if admin_token else None,
            erase=_eraser(settings, self._store, self._state, self._analysis),
            rescore=_rescorer(settings, self._store, self._state, stage),
            calibrate=Calibrator(self._store, lambda: stage.versions).thresholds,
            allowed_hosts=_allowed_hosts(settings),
        )

        # Until it is there the slower decoder serves. What scores texts takes 200 MB: it is
        # loaded for the first batch.
        threading.Thread(target=warm, name="llmobs-warm", daemon=True).start()

    def start(self) -> None:
        for loop in self._loops:
            loop.start()
        if self._otlp:
            self._otlp.start()
        if self._evaluations:
            self._evaluations.start()

    def stop(self) -> None:
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        # Kafka keeps what is not stored; segment files are drained, for who moves the folder.
        if self._log is not None and not self._settings.log:
            ingest = self._loops[0]
            while self._log.sealed() and time.monotonic() < deadline and not ingest.error:
                time.sleep(0.05)
        for loop in self._loops:
            loop.stop()
        if self._analysis is not None:
            self._analysis.close()
        if self._log is not None:
            self._log.close()
        if self._evaluations:
            self._evaluations.stop()
        if self._otlp:
            self._otlp.stop()
        self._state.close()
        self._store.close()

    def _ready(self) -> tuple[bool, dict[str, Any]]:
        reasons = {loop.name: loop.error or "ok" for loop in self._loops}
        if self._log is not None:
            reasons["log"] = self._log.problem() or "ok"
            receives = _answers(_receiver_url(self._settings, "/readyz"))
            reasons["receiver"] = "ok" if receives else "down"
        return all(reason == "ok" for reason in reasons.values()), reasons

    def _render_metrics(self) -> bytes:
        """Return the engine's metrics and the receiver's, so that one scrape sees all."""
        if self._settings.role == "watch":
            return self._metrics.render()
        try:
            with urllib.request.urlopen(  # noqa: S310 - our own receiver
                _receiver_url(self._settings, "/metrics"), timeout=1.0
            ) as answer:
                receiver: bytes = answer.read()
        except OSError:
            receiver = b""  # its absence shows in /readyz
        return receiver + self._metrics.render()


def _log_writer(settings: Settings) -> Sink:
    if settings.log:
        from llmobs.analyzer.log.kafka import KafkaLogWriter

        return KafkaLogWriter(
            settings.log.get_secret_value(), max_request_bytes=settings.max_unpacked_bytes
        )
    from llmobs.analyzer.log import SegmentWriter

    return SegmentWriter(
        settings.data / "log",
        max_bytes=settings.log_max_bytes,
        segment_bytes=settings.segment_max_bytes,
        segment_age_s=settings.segment_max_age_s,
    )


def _log_reader(settings: Settings, store: Store) -> LogReader:
    aside = settings.data / "aside"
    if settings.log:
        from llmobs.analyzer.log.kafka import KafkaLogReader

        return KafkaLogReader(
            settings.log.get_secret_value(),
            resume=store.position,
            aside=aside,
            segment_bytes=settings.segment_max_bytes,
            segment_age_s=settings.segment_max_age_s,
        )
    from llmobs.analyzer.log import SegmentReader

    return SegmentReader(settings.data / "log", aside, source=settings.node)


def _analysis(
    settings: Settings, state: State, batches: ScoredBatches, metrics: Metrics
) -> Analysis:
    from llmobs.analyzer.monitor import MonitorSettings
    from llmobs.analyzer.pipeline import Analysis

    return Analysis(
        state,
        batches,
        MonitorSettings(
            reference_s=settings.reference_s,
            min_reference_units=settings.min_reference_sessions,
            session_idle_s=settings.session_idle_s,
            session_cap_s=settings.session_cap_s,
            false_pages_budget=settings.false_pages,
            cooldown_s=settings.cooldown_s,
        ),
        metrics,
        counts_spans=settings.role == "all",
        grace_s=settings.completeness_grace_s,
        batch=settings.analysis_batch,
    )


def _announcer(settings: Settings, state: State, metrics: Metrics) -> Announcer:
    from llmobs.analyzer.notify import AlertBook, Announcer, AppriseNotifier

    return Announcer(
        state,
        AlertBook(page_url=settings.page_url, resolve_after_s=settings.resolve_after_s),
        [AppriseNotifier(name, url.get_secret_value()) for name, url in settings.channels.items()],
        grafana=_grafana(settings),
        metrics=metrics,
    )


def _grafana(settings: Settings) -> GrafanaPublisher | None:
    if not settings.grafana_url:
        return None
    from llmobs.analyzer.publish import GrafanaPublisher

    token = settings.grafana_token
    return GrafanaPublisher(settings.grafana_url, token=token.get_secret_value() if token else "")


def _otlp(settings: Settings, metrics: Metrics) -> OtlpPublisher | None:
    if not settings.otlp_endpoint:
        return None
    from llmobs.analyzer.publish import OtlpPublisher

    return OtlpPublisher(metrics, settings.otlp_endpoint, interval_s=settings.otlp_interval_s)


def _evaluations(settings: Settings, metrics: Metrics) -> EvaluationPublisher | None:
    if settings.otlp_evaluations == "none" or settings.role == "watch":
        return None
    from llmobs.analyzer.publish import EvaluationPublisher

    return EvaluationPublisher(metrics, settings.otlp_endpoint, which=settings.otlp_evaluations)


def _eraser(
    settings: Settings, store: Store, state: State, analysis: Analysis | None
) -> Callable[[Owner, str], Row] | None:
    """Return what forgets a user or a session; None beside another process that watches."""
    from llmobs.analyzer.erase import Eraser

    if analysis is None:
        return None
    return Eraser(store, state, analysis.forget, settings.data / "aside").erase


def _rules(thresholds: Sequence[ThresholdSetting]) -> list[Rule]:
    from llmobs.analyzer.score import Rule

    rules = []
    for one in thresholds:
        fails_below = one.fail_from is None
        threshold = one.fail_below if one.fail_from is None else one.fail_from
        assert threshold is not None
        rules.append(Rule(one.score, one.target, threshold, fails_below, one.service, one.language))
    return rules


def _rescorer(
    settings: Settings, store: Store, state: State, stage: ScoreStage
) -> Callable[[int, int, Sequence[str], int], Row] | None:
    """Return what scores again; None where others score."""
    from llmobs.analyzer.rescore import Rescorer

    if settings.role == "watch":
        return None
    scored = store.scored if settings.role == "worker" else state.cursor
    return Rescorer(store, stage, scored).step


# --- the supervisor


@dataclass
class _Child:
    name: str
    target: Callable[[Settings], None]
    process: multiprocessing.process.BaseProcess | None = None
    started: float = 0.0
    n_quick_deaths: int = 0
    restart_at: float = 0.0


@dataclass
class Server:
    """The embedded server: two child processes, watched and restarted.

    Use it as a context manager, or call `start` and `stop`.
    """

    settings: Settings
    _children: list[_Child] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _watcher: threading.Thread | None = None
    n_restarts: int = 0

    def start(self) -> Server:
        """Start the children; returns at once.

        Raises:
            ConfigurationError: A port is taken.
        """
        self.settings = _with_ports(self.settings)
        self.settings.data.mkdir(parents=True, exist_ok=True)
        self._children = [_Child("engine", run_engine)]
        if self.settings.role != "watch":
            self._children.insert(0, _Child("receiver", run_receiver))
        for child in self._children:
            self._spawn(child)
        self._watcher = threading.Thread(target=self._watch, name="llmobs-watch", daemon=True)
        self._watcher.start()
        return self

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return when both processes serve.

        Raises:
            LlmobsError: They did not within `timeout_s`; the message says what is missing.
        """
        deadline = time.monotonic() + timeout_s
        reasons = "the page does not answer"
        while time.monotonic() < deadline:
            ready, reasons = _readiness(
                f"http://{_local(self.settings)}:{self.settings.web_port}/readyz"
            )
            if ready:
                return
            time.sleep(0.1)
        raise LlmobsError(f"not ready after {timeout_s:.0f} s: {reasons}")

    def stop(self) -> None:
        """Drain and end: first the receiver (no more comes in), then the engine."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        for child in self._children:
            if child.process is not None and child.process.is_alive():
                child.process.terminate()
                child.process.join(DRAIN_TIMEOUT_S + 10)
                if child.process.is_alive():
                    logger.error("child killed", extra={"child": child.name, "reason": "no drain"})
                    child.process.kill()
                    child.process.join()

    def pids(self) -> dict[str, int]:
        """Return the children's process ids by name."""
        return {c.name: c.process.pid for c in self._children if c.process and c.process.pid}

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _spawn(self, child: _Child) -> None:
        context = multiprocessing.get_context("spawn")
        child.process = context.Process(
            target=child.target, args=(self.settings,), name=f"llmobs-{child.name}"
        )
        child.started = time.monotonic()
        child.process.start()

    def _watch(self) -> None:
        while not self._stopping.wait(0.1):
            now = time.monotonic()
            for child in self._children:
                assert child.process is not None
                if child.process.is_alive():
                    continue
                if not child.restart_at:
                    is_quick = now - child.started <= CALM_S
                    child.n_quick_deaths = child.n_quick_deaths + 1 if is_quick else 0
                    child.restart_at = now + restart_delay_s(child.n_quick_deaths)
                    logger.error(
                        "child died",
                        extra={"child": child.name, "exit_code": child.process.exitcode},
                    )
                if now >= child.restart_at:
                    child.restart_at = 0.0
                    self.n_restarts += 1
                    self._spawn(child)


def restart_delay_s(n_quick_deaths: int) -> float:
    """Return how long a child that died so often in a row, each time soon, stays down."""
    return RESTART_DELAYS_S[max(0, min(n_quick_deaths, len(RESTART_DELAYS_S)) - 1)]


def _with_ports(settings: Settings) -> Settings:
    """Return settings in which every port is a number that was free a moment ago.

    Fixed once, here, so that a restarted child comes back at the same address.
    """
    chosen: dict[str, int] = {}
    open_sockets = []
    try:
        for name in ("grpc_port", "http_port", "web_port"):
            port = getattr(settings, name)
            sock = socket.socket()
            open_sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((settings.host, port))
            except OSError as error:
                raise ConfigurationError(
                    f"{name} {port} on {settings.host} can't be used ({error.strerror}); "
                    f"stop what listens there or choose another with --{name.replace('_', '-')}"
                ) from error
            chosen[name] = sock.getsockname()[1]
    finally:
        for sock in open_sockets:
            sock.close()
    return settings.model_copy(update=chosen)


def _allowed_hosts(settings: Settings) -> tuple[str, ...]:
    """Return the names that the page answers to.

    An open page on a loopback address answers to loopback names alone, so that no other
    site can read it through a DNS name of its own that points here.
    """
    if settings.web_token or settings.host not in {"127.0.0.1", "::1", "localhost"}:
        return ("*",)
    public = urllib.parse.urlsplit(settings.public_url).hostname
    return ("127.0.0.1", "localhost", "[::1]", *([public] if public else []))


def _local(settings: Settings) -> str:
    return "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104


def _receiver_url(settings: Settings, path: str) -> str:
    return f"http://{_local(settings)}:{settings.http_port}{path}"


def _answers(url: str) -> bool:
    return _readiness(url)[0]


def _readiness(url: str) -> tuple[bool, str]:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:  # noqa: S310 - our own server
            return answer.status == 200, ""
    except urllib.error.HTTPError as error:
        return False, error.read().decode(errors="replace")[:500]
    except OSError as error:
        return False, str(error)


def _stop_with_parent() -> None:
    """Drain and end when the supervisor is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="llmobs-parent", daemon=True).start()


# --- logging: JSON lines on stderr

_STANDARD: Final = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **{k: v for k, v in record.__dict__.items() if k not in _STANDARD},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(level: int = logging.WARNING) -> None:
    """Send every record of `level` and above to stderr as a line of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("llmobs").setLevel(min(level, logging.INFO))
