"""A real OpenTelemetry Collector that runs a shipped configuration."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.dashboards.outside import missing, parts
from tests.ports import free_ports

__all__ = ["CONFIGS", "DEPLOY", "Collector", "program", "short_waits"]

DEPLOY = Path(__file__).parents[2] / "deploy"
CONFIGS = ("collector.yaml", "collector-kafka.yaml", "collector-loadbalancing.yaml")
START_TIMEOUT_S = 30.0


def program() -> str:
    """Return the Collector: $OTELCOL, what .ci/collector built, or a contrib one on the path."""
    built = max(parts().glob("otelcol-*/otelcol"), default=None)
    found = os.environ.get("OTELCOL") or built or shutil.which("otelcol-contrib")
    return str(found or missing("no OpenTelemetry Collector is here (.ci/collector builds one)"))


def short_waits(exporter: str) -> tuple[str, ...]:
    """Return the changes that make an exporter batch and try again soon."""
    return (
        f"{exporter}.retry_on_failure.initial_interval=200ms",
        f"{exporter}.retry_on_failure.max_interval=500ms",
        f"{exporter}.sending_queue.batch.flush_timeout=100ms",
    )


class Collector:
    """A shipped configuration at free ports of the loopback, that may be killed and go on.

    Args:
        config: Name of a file in `deploy/`, or a path.
        directory: Where its queue and its output go.
        env: Values of the variables that the configuration names.
        *changes: What is set otherwise than in the file, as for ``--set``.
    """

    def __init__(
        self, config: str | Path, directory: Path, env: Mapping[str, str], *changes: str
    ) -> None:
        self.grpc_port, self.http_port, self._health_port = free_ports(3)
        self._output = directory / "collector.log"
        self._env = {**os.environ, "QUEUE_DIR": str(directory / "queue"), **env}
        sets = (
            f"receivers.otlp.protocols.grpc.endpoint=127.0.0.1:{self.grpc_port}",
            f"receivers.otlp.protocols.http.endpoint=127.0.0.1:{self.http_port}",
            f"extensions.health_check.endpoint=127.0.0.1:{self._health_port}",
            "service.telemetry.metrics.level=none",
            # Nothing is lost without them; what would go to no address costs retries.
            "exporters.otlp_grpc/tempo.endpoint=127.0.0.1:9",
            "exporters.otlp_http/loki.endpoint=http://127.0.0.1:9",
            "exporters.otlp_http/prometheus.endpoint=http://127.0.0.1:9",
            *changes,
        )
        self._command = [program(), f"--config={DEPLOY / config}", *(f"--set={s}" for s in sets)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where apps send OTLP/HTTP to."""
        return f"http://127.0.0.1:{self.http_port}"

    def start(self) -> None:
        """Start it and return when it receives."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self._health_port}", timeout=1).close()
                return
            time.sleep(0.05)
        self.stop()
        pytest.fail(f"the Collector does not start: {self.output[-3000:]}")

    @property
    def output(self) -> str:
        """What it has logged."""
        return self._output.read_text()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal and return when it has ended."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        self.stop(signal.SIGKILL)

    @contextlib.contextmanager
    def running(self) -> Iterator[Collector]:
        """Run it for the block."""
        self.start()
        try:
            yield self
        finally:
            self.stop()
