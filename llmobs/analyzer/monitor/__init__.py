"""Drift monitors: sessions are judged against the reference of their place and hour.

Start with `monitors.py`; `place.py` makes units of calls, `monitor.py` is the life of one
monitor, `kinds.py` what each kind adds. `completeness.py` stands beside them: what is missing.
"""

from llmobs.analyzer.monitor.completeness import GRACE_S, Completeness
from llmobs.analyzer.monitor.monitors import Monitors
from llmobs.analyzer.monitor.settings import MonitorSettings

__all__ = ["GRACE_S", "Completeness", "MonitorSettings", "Monitors"]
