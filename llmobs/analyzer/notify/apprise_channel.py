"""Alerts go out by Apprise: Slack, e-mail, PagerDuty, webhooks and some hundred more."""

from __future__ import annotations

import logging
import re
import warnings
from typing import Any, Final

import apprise
from apprise.plugins.custom_json import NotifyJSON

from llmobs.analyzer.notify.base import DeliveryError
from llmobs.errors import ConfigurationError
from llmobs.records import Alert, Finding

__all__ = ["AppriseNotifier"]

_TYPES: Final = {
    ("firing", "page"): apprise.NotifyType.FAILURE,
    ("firing", "ticket"): apprise.NotifyType.WARNING,
    ("resolved", "page"): apprise.NotifyType.SUCCESS,
    ("resolved", "ticket"): apprise.NotifyType.SUCCESS,
}
_MAX_REASON: Final = 300


class AppriseNotifier:
    """One channel, given as an Apprise URL (https://github.com/caronc/apprise/wiki).

    A JSON webhook (``json://host/path``, ``jsons://`` for TLS) gets the title and the text that
    people get elsewhere, and beside them two objects for programs: ``alert`` with the fields of
    `llmobs.records.Alert`, and ``finding`` with the first finding, or null, without the texts
    of users. A program tells repeated messages apart by ``alert.id`` and ``alert.state``.

    Args:
        name: The channel's name in the settings.
        url: The Apprise URL; it may hold secrets, so it appears in no message.

    Raises:
        ConfigurationError: Apprise does not know such a URL.
    """

    def __init__(self, name: str, url: str) -> None:
        with warnings.catch_warnings():  # the first use loads all plugins, and one uses imghdr
            warnings.simplefilter("ignore", DeprecationWarning)
            plugin = apprise.Apprise.instantiate(url, suppress_exceptions=True)
        if plugin is None:
            scheme = re.match(r"[a-z0-9+]+(?=://)", url)
            raise ConfigurationError(
                f"channel {name!r}: {scheme[0] + '://…' if scheme else 'the value'} is no address "
                "that Apprise knows; see https://github.com/caronc/apprise/wiki for its form"
            )
        self._name = name
        self._url = url

    @property
    def name(self) -> str:
        """The channel's name in the settings."""
        return self._name

    def send(self, alert: Alert, finding: Finding | None) -> None:
        """Deliver one alert.

        Raises:
            DeliveryError: The channel did not take it.
        """
        # A plugin object a message: they keep no state that is worth a lock.
        plugin = apprise.Apprise.instantiate(self._url)
        if isinstance(plugin, NotifyJSON):
            plugin.payload_extras |= {
                "alert": alert.to_json(),
                "finding": None if finding is None else _without_texts(finding.to_json()),
            }
        assert plugin is not None, "the URL was tried on construction"
        channel = apprise.Apprise()
        channel.add(plugin)
        with apprise.LogCapture(level=logging.WARNING) as log:  # type: ignore[no-untyped-call]
            taken = channel.notify(
                title=alert.title,
                body=alert.message,
                body_format=apprise.NotifyFormat.TEXT,
                notify_type=_TYPES[alert.state, alert.severity],
            )
            reason = " ".join(log.getvalue().split())[:_MAX_REASON]
        if not taken:
            raise DeliveryError(f"channel {self._name!r} did not take the alert: {reason}")


def _without_texts(value: Any) -> Any:
    """Leave out what users wrote: evidence holds a few lines of it under ``texts``."""
    if isinstance(value, dict):
        return {key: _without_texts(item) for key, item in value.items() if key != "texts"}
    return [_without_texts(item) for item in value] if isinstance(value, list) else value
