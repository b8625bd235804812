"""What the drift monitors cost: CPU an event and a monitor, and bytes of state.

python -m benchmarks.drift [--json]
"""

from __future__ import annotations

import argparse
import json
import time

from llmobs.analyzer.monitor import Monitors, MonitorSettings
from llmobs.analyzer.monitor.catalog import N_MONITORS
from tests.analyzer.monitor.traffic import START_NS, Traffic

SETTINGS = MonitorSettings(reference_s=45.0, min_reference_units=200, session_idle_s=3.0)
LEARN_S = 60


def measure(calls_a_batch: int) -> dict[str, float]:
    """Return figures of one feature that has learned, fed so many calls at a time."""
    traffic = Traffic(seed=0, duration_s=180.0, sessions_a_s={"assistant": 12.0})
    calls_a_s = len(traffic.columns["end_s"]) / traffic.duration_s
    monitors = Monitors(SETTINGS)
    for spans, scores, now_ns in traffic.batches(every_s=0.5):
        if now_ns > START_NS + LEARN_S * 10**9:
            break
        monitors.observe(spans, scores, now_ns=now_ns)
    batches = list(traffic.batches(every_s=calls_a_batch / calls_a_s, since_s=LEARN_S))
    n_events = sum(len(spans) for spans, _, _ in batches)
    start_s = time.process_time()
    for spans, scores, now_ns in batches:
        monitors.observe(spans, scores, now_ns=now_ns)
    cpu_s = time.process_time() - start_s
    return {
        "calls_a_batch": n_events / len(batches),
        "us_per_event": cpu_s / n_events * 1e6,
        "us_per_event_and_monitor": cpu_s / n_events / N_MONITORS * 1e6,
        "state_kb_per_monitor": len(monitors.to_state()) / N_MONITORS / 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    as_json = parser.parse_args().json
    measure(17)  # compiles
    for calls_a_batch in (17, 200, 1000):
        figures = {"n_monitors": N_MONITORS, **measure(calls_a_batch)}
        if as_json:
            print(json.dumps({"benchmark": "drift", **figures}))
        else:
            print("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
