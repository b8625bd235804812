"""Notify: findings become alerts, alerts reach people.

`alerting.py` holds the rules and does nothing; `announcer.py` is the loop; `apprise_channel.py`
is the way out; `base.py` has the seams.
"""

from llmobs.analyzer.notify.alerting import AlertBook, SeverityRule, sample_alert
from llmobs.analyzer.notify.announcer import Announcer, Route
from llmobs.analyzer.notify.apprise_channel import AppriseNotifier
from llmobs.analyzer.notify.base import DeliveryError, Notifier

__all__ = [
    "AlertBook",
    "Announcer",
    "AppriseNotifier",
    "DeliveryError",
    "Notifier",
    "Route",
    "SeverityRule",
    "sample_alert",
]
