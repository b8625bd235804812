"""A real Prometheus on the loopback, filled with pages that `Metrics` rendered."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.dashboards.outside import outside
from tests.ports import free_ports


def write_history(folder: Path, pages: Iterable[tuple[float, bytes]]) -> Path:
    """Write pages, each with the time of its scrape, into a Prometheus data folder.

    Args:
        folder: Where the files go.
        pages: (seconds since 1970, a page in the text format), oldest first.

    Returns:
        The data folder.
    """
    families: dict[str, list[str]] = {}
    for time_s, page in pages:
        lines = families.setdefault("", [])
        for line in page.decode().splitlines():
            if line.startswith("# TYPE "):
                lines = families.setdefault(line, [])
            elif not line.startswith("#"):
                lines.append(f"{line} {time_s}")
    # OpenMetrics names a counter without its _total, and its families stand in one piece.
    text = "".join(
        "\n".join([re.sub(r"_total counter$", " counter", head), *lines, ""])
        for head, lines in families.items()
        if lines
    )
    source, data = folder / "history.om", folder / "data"
    source.write_text(f"{text}# EOF\n")
    create = ["tsdb", "create-blocks-from", "openmetrics", str(source), str(data)]
    made = subprocess.run(
        [outside("promtool"), *create], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return data


class Prometheus:
    """Answers queries."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str, time_s: float) -> list[dict[str, Any]]:
        """Run an instant query and return its series."""
        arguments = urllib.parse.urlencode({"query": expr, "time": time_s})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{arguments}", timeout=30) as got:
                answer = json.load(got)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expr}: {error.read().decode()}") from error
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


@contextmanager
def running(data: Path) -> Iterator[Prometheus]:
    """Run a Prometheus over a data folder as long as the block lasts."""
    (port,) = free_ports(1)
    config = data.parent / "prometheus.yml"
    config.write_text("{}")
    process = subprocess.Popen(
        [
            outside("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={data}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--storage.tsdb.retention.time=10y",
            "--log.level=error",
        ]
    )
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 30
        while not _is_ready(url):
            assert process.poll() is None, "Prometheus ended"
            assert time.monotonic() < deadline, "Prometheus is not ready"
            time.sleep(0.1)
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(20)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2):
            return True
    except OSError:
        return False
