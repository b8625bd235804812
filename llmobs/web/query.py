"""Query parameters of the API, read once and strictly: what can't be understood is a 400."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from llmobs.web.errors import BadQueryError

__all__ = ["DIMENSIONS", "MAX_LIMIT", "Query", "Window", "step_s"]

DIMENSIONS: Final = ("service", "environment", "feature", "model")
"""Filters that every query of the store knows."""

MAX_LIMIT: Final = 1000
MAX_TEXT: Final = 256  # longer than any id or name; a longer search text finds nothing anyway
MAX_WINDOW_S: Final = 400 * 86_400  # a year and a month: "the same month last year" still fits

TIME_HINT: Final = (
    "Use a duration (15m, 1h, 24h, 7d), an ISO 8601 time (2026-11-24T12:00:00Z) "
    "or milliseconds since 1970."
)
_DURATION: Final = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

# About a hundred points fit a chart; the store's roll-up has one row a minute.
_MAX_POINTS: Final = 120
_STEPS_S: Final = (60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400)


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open span of time, in ns since 1970."""

    since_ns: int
    until_ns: int

    @property
    def duration_s(self) -> float:
        """Return the length in seconds."""
        return (self.until_ns - self.since_ns) / 1e9

    @classmethod
    def of_day(cls, text: str) -> Window:
        """Return a day (UTC) such as ``2026-11-24``.

        Raises:
            BadQueryError: There is no such day.
        """
        try:
            day = datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError as error:
            raise BadQueryError(f"{text!r} is not a day", hint=TIME_HINT) from error
        since_ns = int(day.timestamp()) * 1_000_000_000
        return cls(since_ns, since_ns + 86_400 * 1_000_000_000)

    def previous(self) -> Window:
        """Return the window of the same length that ends where this one begins."""
        return Window(2 * self.since_ns - self.until_ns, self.since_ns)

    def to_json(self) -> dict[str, int]:
        """Return the bounds in ms since 1970."""
        return {"since_ms": self.since_ns // 1_000_000, "until_ms": self.until_ns // 1_000_000}


class Query:
    """The parameters of one request.

    Args:
        params: As they came.
        known: Names that this address understands.
        now_ns: What `until` means when it is not given.

    Raises:
        BadQueryError: A parameter is unknown or too long.
    """

    def __init__(self, params: Mapping[str, str], known: Collection[str], now_ns: int) -> None:
        for name, value in params.items():
            if name not in known:
                raise BadQueryError(
                    f"unknown parameter {name!r}",
                    hint=f"This address understands: {', '.join(sorted(known)) or 'nothing'}.",
                )
            if len(value) > MAX_TEXT:
                raise BadQueryError(
                    f"{name} has {len(value)} characters", hint=f"At most {MAX_TEXT} are read."
                )
        self._params = params
        self._now_ns = now_ns

    @property
    def now_ns(self) -> int:
        """What the time is here, in ns since 1970."""
        return self._now_ns

    def text(self, name: str) -> str | None:
        """Return a parameter, None where it is missing or empty."""
        return self._params.get(name) or None

    def filters(self, *names: str) -> dict[str, str]:
        """Return those of the named parameters that were given."""
        return {name: value for name in names if (value := self.text(name)) is not None}

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """Return a parameter that must be one of `choices`."""
        value = self.text(name) or default
        if value not in choices:
            raise BadQueryError(
                f"{name}={value!r} is not known", hint=f"Use one of: {', '.join(sorted(choices))}."
            )
        return value

    def whole(self, name: str, default: int, *, low: int, high: int) -> int:
        """Return a whole number; above `high` it is cut to that, below `low` it is an error."""
        value = self.text(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit()) or int(value) < low:
            raise BadQueryError(
                f"{name}={value!r} is not a whole number from {low} up",
                hint=f"Use a number from {low} to {high}.",
            )
        return min(int(value), high)

    def share(self, name: str, default: float) -> float:
        """Return a number between 0 and 1, without both."""
        value = self.text(name)
        try:
            share = default if value is None else float(value)
        except ValueError:
            share = math.nan
        if not 0 < share < 1:
            raise BadQueryError(f"{name}={value!r} is no share", hint="Use one like 0.01.")
        return share

    def limit(self, default: int = 100) -> int:
        """Return how many rows may be answered."""
        return self.whole("limit", default, low=1, high=MAX_LIMIT)

    def window(self, default: str = "24h") -> Window:
        """Return what `since` and `until` say; a duration counts back from `until`."""
        until_ns = self._time("until", self.text("until"), self._now_ns)
        since_ns = self._time("since", self.text("since") or default, until_ns)
        if since_ns >= until_ns:
            raise BadQueryError("since is not before until", hint=TIME_HINT)
        if until_ns - since_ns > MAX_WINDOW_S * 1_000_000_000:
            raise BadQueryError(
                "the window is too long", hint=f"At most {MAX_WINDOW_S // 86_400} days are read."
            )
        return Window(since_ns, until_ns)

    def _time(self, name: str, value: str | None, base_ns: int) -> int:
        if value is None:
            return base_ns
        if match := _DURATION.fullmatch(value):
            return base_ns - int(match[1]) * _UNIT_S[match[2]] * 1_000_000_000
        try:
            if value.isascii() and value.isdigit() and len(value) in (12, 13):
                return int(value) * 1_000_000
            # A "+" of a time zone reaches us as a space when the caller didn't escape it.
            moment = datetime.fromisoformat(value.replace(" ", "+"))
            return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1e9)
        except (ValueError, OverflowError) as error:
            raise BadQueryError(f"{name}={value!r} is not a time", hint=TIME_HINT) from error


def step_s(window: Window) -> int:
    """Return the step, in seconds, that cuts a window into about a hundred points."""
    return next(
        (step for step in _STEPS_S if window.duration_s / step <= _MAX_POINTS), 7 * _STEPS_S[-1]
    )
