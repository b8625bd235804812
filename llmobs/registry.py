"""Plugins by name: one way for ours and for others', Python entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from llmobs.errors import ConfigurationError

__all__ = ["load", "names"]


def names(group: str) -> tuple[str, ...]:
    """Return the names that are registered under an entry-point group, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))


def load(group: str, name: str) -> Any:
    """Load what an entry point names.

    Args:
        group: The entry-point group, such as ``llmobs.scorers``.
        name: The entry's name, such as ``toxicity``.

    Raises:
        ConfigurationError: No such entry, two of that name, or its import fails.
    """
    found: list[EntryPoint] = [e for e in entry_points(group=group) if e.name == name]
    if not found:
        known = ", ".join(names(group)) or "none installed"
        raise ConfigurationError(f"no plugin {name!r} in {group!r}; known: {known}")
    if len({entry.value for entry in found}) > 1:
        where = ", ".join(entry.value for entry in found)
        raise ConfigurationError(f"plugin {name!r} in {group!r} is registered twice: {where}")
    try:
        return found[0].load()
    except Exception as error:  # someone else's module: anything may happen on import
        raise ConfigurationError(f"plugin {name!r} ({found[0].value}) fails to import") from error
