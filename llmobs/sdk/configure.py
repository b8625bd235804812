"""`llmobs.init` and its end: arguments over ``OTEL_*`` variables over defaults."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, Literal, get_args

from opentelemetry import trace
from opentelemetry._logs import get_logger_provider, set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler

from llmobs import semconv
from llmobs.errors import ConfigurationError
from llmobs.sdk import runtime as process
from llmobs.sdk.content import CONTENT_MODES, ContentMode
from llmobs.sdk.export import Sender
from llmobs.sdk.exporters import import_exporters
from llmobs.sdk.foreign import ForeignEvents, ForeignSpans
from llmobs.sdk.guarded import guarded, n_faults, report
from llmobs.sdk.instrument import CAPTURE_IS_OURS, CAPTURE_VARIABLE, activate
from llmobs.sdk.runtime import Names, Place, Protocol, Runtime, Settings
from llmobs.sdk.sampling import RecordAll, sampler_from
from llmobs.sdk.spool import is_supported

__all__ = ["Status", "flush", "init", "shutdown", "status"]

# Mode and place for each value of the instrumentations' variable; TRUE and FALSE are its old form.
_CAPTURE: Final[Mapping[str, tuple[ContentMode, Place]]] = {
    "NO_CONTENT": ("metadata", "span"),
    "FALSE": ("metadata", "span"),
    "SPAN_ONLY": ("full", "span"),
    "TRUE": ("full", "span"),
    "EVENT_ONLY": ("full", "event"),
    "SPAN_AND_EVENT": ("full", "both"),
}


class _Process:
    """What is there once per process, beside the runtime."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sender: Sender | None = None
        self.said: Mapping[str, object] = {}  # to `init`
        self.is_hooked = False


_here: Final = _Process()


@dataclass(frozen=True, slots=True)
class Status:
    """What became of the spans of this process.

    Attributes:
        active: Whether `llmobs.init` was called and `llmobs.shutdown` was not.
        recorded: Spans that ended and were sampled, other instrumentations' included.
        exported: Spans that the receiver has taken.
        events_exported: Events that the receiver has taken.
        dropped: Spans and events that were lost, by reason: ``queue_full``, ``refused`` (the
            receiver refused the bytes), ``not_taken`` (it was away for too long),
            ``not_describable``, ``spool_full`` (there was no more room on disk) or
            ``spool_unreadable``.
        waiting: Spans and events in the queue.
        spooled: Spans and events on disk, those that dead processes have left included.
        faults: Steps of ours that failed and were kept from the application.
    """

    active: bool
    recorded: int
    exported: int
    events_exported: int
    dropped: Mapping[str, int]
    waiting: int
    spooled: int
    faults: int


def init(
    service: str | None = None,
    *,
    endpoint: str | None = None,
    environment: str | None = None,
    capture_content: ContentMode | None = None,
    content_place: Place | None = None,
    redact: Callable[[str], str] | None = None,
    headers: Mapping[str, str] | None = None,
    protocol: Protocol | None = None,
    instrument: Literal["auto"] | Sequence[str] | None = None,
    sample_ratio: float | None = None,
    names: Names = "current",
    foreign: Literal["genai", "all", "off"] = "genai",
    resource_attributes: Mapping[str, Any] | None = None,
    queue_capacity: int | None = None,
    queue_capacity_bytes: int = 64_000_000,
    batch_size: int | None = None,
    export_interval_s: float | None = None,
    metric_interval_s: float | None = None,
    retry_s: float = 300.0,
    flush_timeout_s: float = 3.0,
    max_characters: int = 100_000,
    spool: str | os.PathLike[str] | None = None,
    spool_max_bytes: int | None = None,
) -> None:
    """Begin to record. What is not given comes from the standard ``OTEL_*`` variables.

    A second call changes nothing until `shutdown`, and warns where it says something else. Call it
    after a tracer provider of your own, whose resource and sampler are then used.
    ``OTEL_SDK_DISABLED=true`` makes it do nothing.

    Args:
        service: ``service.name``; else ``OTEL_SERVICE_NAME``.
        endpoint: Base URL of the receiver; else ``OTEL_EXPORTER_OTLP_ENDPOINT``, else
            ``http://localhost:4318`` (4317 for gRPC).
        environment: ``deployment.environment.name``.
        capture_content: How much of prompts, answers, tools' arguments and exceptions' messages
            leaves the process: ``full``; ``redacted`` (e-mail addresses, cards and keys masked,
            then `redact`); ``metadata`` (lengths only); ``off`` (not even these). Else
            ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT``, else ``metadata``: what people
            wrote leaves only when the app's owner says so, as the conventions ask; scores of
            content need ``redacted`` or ``full``.
        content_place: On the span (default), on the details event, or on both (sent twice).
        redact: A text in, the text that may leave out; used in mode ``redacted``. Where it fails
            the text is withheld.
        headers: Sent with every request, such as ``{"authorization": "Bearer …"}``.
        protocol: ``http/protobuf`` (default) or ``grpc``; else ``OTEL_EXPORTER_OTLP_PROTOCOL``.
        instrument: ``auto`` switches on what `llmobs.instrument` does; a list names others.
        sample_ratio: Share of the traces that are kept, in [0, 1]; metrics count all. Else
            ``OTEL_TRACES_SAMPLER``.
        names: Names of metrics: the conventions' current, or those of released instrumentations.
        foreign: Which spans of other instrumentations are sent: about GenAI, all, or none.
        resource_attributes: Further attributes of the process.
        queue_capacity: Spans that may wait; else ``OTEL_BSP_MAX_QUEUE_SIZE``, else 10,000.
        queue_capacity_bytes: Memory for what waits, about.
        batch_size: Spans per request; else ``OTEL_BSP_MAX_EXPORT_BATCH_SIZE``, else 512.
        export_interval_s: Longest wait for a batch; else ``OTEL_BSP_SCHEDULE_DELAY``, else 1.
        metric_interval_s: Else ``OTEL_METRIC_EXPORT_INTERVAL``, else 60.
        retry_s: How long a batch is tried again while the receiver is away.
        flush_timeout_s: By how much the process's end may be delayed at most.
        max_characters: Longest text that is sent.
        spool: Folder in which requests wait until the receiver has taken them, so that neither
            an outage nor a kill loses them; processes may share it. Else ``LLMOBS_SPOOL``, else
            they wait in memory. For OTLP over HTTP, and not on Windows.
        spool_max_bytes: Disk space for it, of all processes together; the oldest goes first. Else
            ``LLMOBS_SPOOL_MAX_BYTES``, else 256 MB.

    Raises:
        ConfigurationError: An argument is not one of its values, or the endpoint is no URL.
    """
    said = dict(locals())
    _check(capture_content, protocol, names, sample_ratio, foreign)
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    mode, place = _capture(capture_content, content_place)
    settings = Settings(
        endpoint=endpoint,
        headers=headers,
        protocol=protocol or _protocol(),
        content=mode,
        content_place=place,
        redact=redact,
        names=names,
        queue_capacity=queue_capacity or int(_number("OTEL_BSP_MAX_QUEUE_SIZE", 10_000)),
        queue_capacity_bytes=queue_capacity_bytes,
        batch_size=batch_size or int(_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)),
        export_interval_s=export_interval_s or _number("OTEL_BSP_SCHEDULE_DELAY", 1_000) / 1_000,
        metric_interval_s=metric_interval_s
        or _number("OTEL_METRIC_EXPORT_INTERVAL", 60_000) / 1_000,
        retry_s=retry_s,
        flush_timeout_s=flush_timeout_s,
        max_characters=max_characters,
        foreign=foreign,
        spool=_spool(spool, protocol or _protocol()),
        spool_max_bytes=spool_max_bytes or int(_number("LLMOBS_SPOOL_MAX_BYTES", 256_000_000)),
    )
    if settings.protocol == "http/protobuf" and "://" not in (endpoint or "://"):
        raise ConfigurationError(f"endpoint is {endpoint!r}; give a URL: http://{endpoint}")
    with _here.lock:
        if process.active is not None:
            with guarded("compare with the first init"):
                others = sorted(name for name in said if said[name] != _here.said[name])
                if others:
                    report("init again changes nothing", differing=", ".join(others))
            return
        with guarded("init"):
            import_exporters(settings.protocol)
            theirs = trace.get_tracer_provider()
            resource, sampler = _adopt(theirs, sample_ratio)
            own = {
                semconv.SERVICE_NAME: service,
                semconv.DEPLOYMENT_ENVIRONMENT_NAME: environment,
                **(resource_attributes or {}),
            }
            known = {key: value for key, value in own.items() if value is not None}
            resource = resource.merge(Resource(known))
            runtime = Runtime(settings, resource, sampler)
            sender = Sender(runtime)
            _install(theirs, resource, sampler)
            _hook()
            sender.start()  # last: what fails before leaves no thread behind
            _here.sender, _here.said = sender, said
            process.active = runtime
    if instrument is not None and process.active is not None:
        _start_instrumentations(instrument, settings)


def _start_instrumentations(wanted: Literal["auto"] | Sequence[str], settings: Settings) -> None:
    with guarded("instrument"):
        activate(wanted, settings)


def _check(
    mode: str | None, protocol: str | None, names: str, ratio: float | None, foreign: str
) -> None:
    for what, value, known in (
        ("capture_content", mode, CONTENT_MODES),
        ("protocol", protocol, get_args(Protocol)),
        ("names", names, get_args(Names)),
        ("foreign", foreign, ("genai", "all", "off")),
    ):
        if value is not None and value not in known:
            raise ConfigurationError(f"{what} is {value!r}; choose one of {', '.join(known)}")
    if ratio is not None and not 0 <= ratio <= 1:
        raise ConfigurationError(f"sample_ratio is {ratio!r}; give a share between 0 and 1")


def _capture(mode: ContentMode | None, place: Place | None) -> tuple[ContentMode, Place]:
    is_ours = CAPTURE_IS_OURS in os.environ
    said = "" if is_ours else os.environ.get(CAPTURE_VARIABLE, "").strip().upper()
    if said and said not in _CAPTURE:
        report("capture variable unknown, no content is captured", value=said)
    of_environment = _CAPTURE.get(said, ("metadata", "span"))
    return mode or of_environment[0], place or of_environment[1]


def _protocol() -> Protocol:
    said = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip().lower()
    if said and said not in get_args(Protocol):
        report("protocol unknown, http/protobuf is used", protocol=said)
    return "grpc" if said == "grpc" else "http/protobuf"


def _spool(folder: str | os.PathLike[str] | None, protocol: Protocol) -> str | None:
    wanted = folder or os.environ.get("LLMOBS_SPOOL", "").strip()
    if not wanted:
        return None
    if protocol == "http/protobuf" and is_supported():
        return os.fspath(wanted)
    report("no spool: it needs OTLP over HTTP and a POSIX system", protocol=protocol)
    return None


def _number(variable: str, default: float) -> float:
    try:
        value = float(os.environ.get(variable, ""))
    except ValueError:
        return default
    return value if value > 0 else default


def _adopt(theirs: trace.TracerProvider, ratio: float | None) -> tuple[Resource, Sampler]:
    """Return resource and sampler: those of the application's tracer provider where it has one."""
    if isinstance(theirs, TracerProvider) and not isinstance(theirs.sampler, RecordAll):
        return theirs.resource, theirs.sampler if ratio is None else sampler_from(ratio)
    # No provider, or one of ours from before a shutdown.
    return Resource.create(), sampler_from(ratio)


def _install(theirs: trace.TracerProvider, resource: Resource, sampler: Sampler) -> None:
    """Lead other instrumentations' spans and events through our queue, once per process."""
    if _here.is_hooked:
        if isinstance(theirs, TracerProvider) and isinstance(theirs.sampler, RecordAll):
            theirs.sampler.inner = sampler  # ours, from before a shutdown
        return
    if isinstance(theirs, TracerProvider):
        theirs.add_span_processor(ForeignSpans())
    else:
        provider = TracerProvider(
            sampler=RecordAll(sampler), resource=resource, shutdown_on_exit=False
        )
        provider.add_span_processor(ForeignSpans())
        trace.set_tracer_provider(provider)
    logs = get_logger_provider()
    if isinstance(logs, LoggerProvider):
        logs.add_log_record_processor(ForeignEvents())
    else:
        own = LoggerProvider(resource=resource, shutdown_on_exit=False)
        own.add_log_record_processor(ForeignEvents())
        set_logger_provider(own)


def _hook() -> None:
    """Be told of the process's end, of forks and of SIGTERM; once per process."""
    if _here.is_hooked:
        return
    _here.is_hooked = True
    atexit.register(shutdown)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_renew)
    # Workers of pools leave by os._exit, which runs no atexit; their libraries have finalizers of
    # their own, which a child has to register after the fork.
    for library in ("multiprocessing", "billiard"):
        with guarded(f"hook into {library}"):
            util = sys.modules.get(f"{library}.util")
            if util is None and library == "multiprocessing":
                from multiprocessing import util
            if util is not None:
                util.register_after_fork(shutdown, _finalize_with(util))
    if threading.current_thread() is threading.main_thread():
        with guarded("hook into SIGTERM"):
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _terminate)


def _finalize_with(util: Any) -> Callable[[Any], None]:
    def register(_: Any) -> None:
        util.Finalize(None, shutdown, exitpriority=100)

    return register


def _terminate(number: int, frame: FrameType | None) -> None:
    """Send what waits, then end by the signal as if we had not been here."""
    shutdown()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _renew() -> None:
    """Start afresh in a forked child: what waits and what runs belongs to the parent."""
    _here.lock = threading.Lock()
    if process.active is not None and _here.sender is not None:
        with guarded("renew after a fork"):
            process.active.renew()
            _here.sender.renew()


def flush(timeout_s: float | None = None) -> bool:
    """Send all that waits, and wait for it.

    Args:
        timeout_s: Longest wait; None: `flush_timeout_s` of `init`.

    Returns:
        Whether all was tried in time; False before `init`.
    """
    active, sender = process.active, _here.sender
    if active is None or sender is None:
        return False
    with guarded("flush"):
        return sender.flush(active.settings.flush_timeout_s if timeout_s is None else timeout_s)
    return False


def shutdown(timeout_s: float | None = None) -> bool:
    """Send what waits and stop recording; decorated functions go on without spans.

    Called by itself at the process's end.

    Args:
        timeout_s: Longest wait; None: `flush_timeout_s` of `init`.

    Returns:
        Whether all was tried in time.
    """
    active, sender = process.active, _here.sender
    if active is None or sender is None:
        return True
    process.active = None
    with guarded("shut down"):
        return sender.close(active.settings.flush_timeout_s if timeout_s is None else timeout_s)
    return False


def status() -> Status:
    """Return what became of the spans since `init`, also after `shutdown`."""
    sender = _here.sender
    if sender is None:
        return Status(False, 0, 0, 0, {}, 0, 0, n_faults())
    buffer = sender.buffer
    return Status(
        active=process.active is not None,
        recorded=buffer.n_numbered + buffer.n_foreign,
        exported=sender.n_spans,
        events_exported=sender.n_events,
        dropped=dict(buffer.dropped),
        waiting=len(buffer),
        spooled=sender.n_spooled,
        faults=n_faults(),
    )
