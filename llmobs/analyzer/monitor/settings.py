"""What a user may set about the monitors; the defaults need no line."""

from __future__ import annotations

from dataclasses import dataclass

from llmobs.errors import ConfigurationError

__all__ = ["MonitorSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSettings:
    """Settings of all monitors.

    Attributes:
        reference_s: Length of the reference, in seconds. A monitor starts earlier, on a
            shorter, *provisional* reference, and takes a longer one each time it has doubled.
        min_reference_units: Sessions that a reference must hold.
        session_idle_s: A session ends after so long without a call …
        session_cap_s: … and at the latest after so long.
        false_pages_budget: Pages without cause that all monitors together may send …
        budget_days: … in so many days.
        units_a_day: Sessions a day of one feature, for the budget; None: as in the reference.
        cooldown_s: An alarm ends when the evidence has stayed low for so long, and for three
            times the sessions that it took to find the change; until then the same monitor
            sends nothing about the same place.
        max_places: Places (service, environment, feature) watched on their own; calls of
            further ones are watched together as "(other)".
        max_open_sessions: Open sessions of one place; beyond, the longest idle are closed.
        forget_place_s: A place without a call for so long makes room for others, when there
            are too many; one that watches nothing yet after a day.
    """

    reference_s: float = 14 * 86_400.0
    min_reference_units: int = 400
    session_idle_s: float = 600.0
    session_cap_s: float = 3600.0
    false_pages_budget: float = 1.0
    budget_days: float = 30.0
    units_a_day: float | None = None
    cooldown_s: float = 3600.0
    max_places: int = 64
    max_open_sessions: int = 8192
    forget_place_s: float = 30 * 86_400.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigurationError(f"{name} must be above 0, not {value}")
        if self.min_reference_units < 40:
            raise ConfigurationError(
                f"min_reference_units must be at least 40, not {self.min_reference_units}: "
                "a smaller reference says nothing"
            )
