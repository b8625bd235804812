"""The receiver as a process: both ports, one log behind them, and a clean end."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from types import FrameType, TracebackType
from typing import Final

import uvicorn

from llmobs.access import Keys
from llmobs.analyzer.receive.base import Check, Sink
from llmobs.analyzer.receive.intake import Intake, Limits
from llmobs.analyzer.receive.metrics import ReceiverMetrics
from llmobs.analyzer.receive.over_grpc import GrpcServer
from llmobs.analyzer.receive.over_http import HttpApp
from llmobs.analyzer.receive.protocol import ImpatientProtocol
from llmobs.errors import ConfigurationError, LlmobsError

__all__ = ["GRPC_PORT", "HTTP_PORT", "Receiver", "run"]

logger = logging.getLogger(__name__)

# The ports that IANA has registered for OTLP.
HTTP_PORT: Final = 4318
GRPC_PORT: Final = 4317

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
# Senders export every few seconds (the SDK's default is 5); a connection should outlive that.
_KEEP_ALIVE_S: Final = 65
_BACKLOG: Final = 2048
# How soon a server that ended by itself is noticed; the process then ends, to be started again.
_WATCH_S: Final = 1.0
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class _HttpServer(uvicorn.Server):
    """Uvicorn, but signals are left to `run`: uvicorn raises them again when it has stopped."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Receiver:
    """OTLP over HTTP and gRPC into one sink; a context manager that serves while it is open."""

    def __init__(
        self,
        sink: Sink,
        check: Check,
        *,
        keys: Keys | None = None,
        host: str = "127.0.0.1",
        http_port: int = HTTP_PORT,
        grpc_port: int = GRPC_PORT,
        limits: Limits | None = None,
        cors_origins: Collection[str] = (),
    ) -> None:
        """Bind both ports.

        Args:
            sink: Keeps requests; it is not closed here.
            check: Says whether bytes are an export request.
            keys: Who may send; None: everybody.
            host: Address to listen on.
            http_port: For OTLP/HTTP, ``/healthz``, ``/readyz`` and ``/metrics``; 0: a free one.
            grpc_port: For OTLP/gRPC; 0: a free one.
            limits: Sizes and times.
            cors_origins: Origins whose web pages may send.

        Raises:
            ConfigurationError: A port can't be had.
        """
        self._limits = limits or Limits()
        keys = keys or Keys()
        if keys.is_open and host not in _LOOPBACK:
            logger.warning("receiver open to the network without a key", extra={"host": host})
        intake = Intake(sink, check, keys, self._limits, ReceiverMetrics(sink.stats))
        self._app = HttpApp(intake, cors_origins=cors_origins)
        self._socket = _listen(host, http_port)
        self.http_port: int = self._socket.getsockname()[1]
        try:
            self._grpc = GrpcServer(intake, host=host, port=grpc_port)
        except ConfigurationError:
            self._socket.close()
            raise
        self.grpc_port = self._grpc.port
        self._http = _HttpServer(
            uvicorn.Config(
                self._app,
                lifespan="off",
                ws="none",
                http=_protocol(self._limits.read_timeout_s),
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, round(self._limits.drain_s)),
            )
        )
        self._thread = threading.Thread(
            target=self._http.run, args=([self._socket],), name="llmobs-http", daemon=True
        )

    def __enter__(self) -> Receiver:
        """Begin to answer on both ports."""
        self._grpc.start()
        self._thread.start()
        try:
            while not self._http.ready.wait(0.05):
                self.check_alive()
        except LlmobsError:
            self._grpc.stop(0)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take no new request, answer those in flight, and free the ports."""
        self._http.should_exit = True
        self._grpc.stop(self._limits.drain_s)
        self._thread.join()
        self._app.close()

    def check_alive(self) -> None:
        """Do nothing while requests are answered.

        Raises:
            LlmobsError: The HTTP server has ended by itself.
        """
        if not self._thread.is_alive():
            raise LlmobsError("the HTTP server ended by itself; the log above says why")


def run(
    sink: Sink,
    check: Check,
    *,
    keys: Keys | None = None,
    host: str = "127.0.0.1",
    http_port: int = HTTP_PORT,
    grpc_port: int = GRPC_PORT,
    limits: Limits | None = None,
    cors_origins: Collection[str] = (),
    on_ready: Callable[[int, int], None] | None = None,
) -> None:
    """Receive until SIGTERM or SIGINT, then finish what is in flight and close the sink.

    To be called from the main thread of a process.

    Args:
        sink: Keeps requests; closed at the end, whatever happens.
        check: Says whether bytes are an export request.
        keys: Who may send; None: everybody.
        host: Address to listen on.
        http_port: For OTLP/HTTP, ``/healthz``, ``/readyz`` and ``/metrics``; 0: a free one.
        grpc_port: For OTLP/gRPC; 0: a free one.
        limits: Sizes and times.
        cors_origins: Origins whose web pages may send.
        on_ready: Called with the two ports, HTTP and gRPC, once both answer.

    Raises:
        ConfigurationError: A port can't be had.
        LlmobsError: The server has ended by itself; the sink is closed all the same.
    """
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, ask_to_stop) for number in _STOP_SIGNALS}
    try:
        with Receiver(
            sink,
            check,
            keys=keys,
            host=host,
            http_port=http_port,
            grpc_port=grpc_port,
            limits=limits,
            cors_origins=cors_origins,
        ) as receiver:
            ports = {"http_port": receiver.http_port, "grpc_port": receiver.grpc_port}
            logger.info("receiver started", extra={"host": host, **ports})
            if on_ready is not None:
                on_ready(receiver.http_port, receiver.grpc_port)
            while not stop.wait(_WATCH_S):
                receiver.check_alive()
            logger.info("receiver stopping", extra=ports)
    finally:
        sink.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _protocol(timeout_s: float) -> type[ImpatientProtocol]:
    """Return the protocol with a timeout: uvicorn makes the instances and passes none."""
    return type("Protocol", (ImpatientProtocol,), {"timeout_s": timeout_s})


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"can't listen on {host}:{port} for OTLP/HTTP ({error.strerror}): is another program "
            "there? stop it or choose another port"
        ) from error
