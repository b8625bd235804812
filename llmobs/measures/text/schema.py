"""What a JSON value lacks of its schema: the keywords that structured outputs are written in.

A schema comes over the wire like any text, so it is checked here and not by a library: nothing
is fetched, no pattern of it is run (one that backtracks would never end), and the work is bounded.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

__all__ = ["schema_fault"]

_MAX_STEPS: Final = 50_000
_MAX_DEPTH: Final = 100
_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
}
# Keyword: the type it speaks of, what of the value it bounds, and what must hold.
_BOUNDS: Final[Mapping[str, tuple[str, Callable[[Any], Any], Callable[[Any, Any], bool]]]] = {
    "minimum": ("number", lambda value: value, operator.ge),
    "maximum": ("number", lambda value: value, operator.le),
    "exclusiveMinimum": ("number", lambda value: value, operator.gt),
    "exclusiveMaximum": ("number", lambda value: value, operator.lt),
    "minLength": ("string", len, operator.ge),
    "maxLength": ("string", len, operator.le),
    "minItems": ("array", len, operator.ge),
    "maxItems": ("array", len, operator.le),
}


class _GivenUpError(Exception):
    """The schema is too deep, too costly, or refers to what isn't there."""


def schema_fault(value: Any, schema: Any) -> str:
    """Return the first thing in which a JSON value does not fit a schema, or "".

    Checked are ``type``, ``enum``, ``const``, ``properties``, ``required``,
    ``additionalProperties``, ``items``, bounds of numbers and lengths, ``allOf``, ``anyOf``,
    ``oneOf`` and a ``$ref`` within the schema. Every other keyword is taken for fulfilled, and
    so is a schema that would take more than 50,000 steps or a hundred levels.

    Returns:
        Where and what, in names of the schema's properties and never in words of the value.
    """
    try:
        return next(_Check(schema).faults(value, schema, "", 0), "")
    except _GivenUpError:
        return ""


class _Check:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._n_left = _MAX_STEPS

    def faults(self, value: Any, schema: Any, place: str, depth: int) -> Iterator[str]:
        self._n_left -= 1
        if self._n_left < 0 or depth > _MAX_DEPTH:
            raise _GivenUpError
        if schema is False:
            yield f"{place or '/'} must not be there"
        if not isinstance(schema, dict):
            return
        if isinstance(ref := schema.get("$ref"), str):
            yield from self.faults(value, self._resolved(ref), place, depth + 1)
        yield from self._own_faults(value, schema, place)
        yield from self._combined_faults(value, schema, place, depth)
        if isinstance(value, dict):
            yield from self._property_faults(value, schema, place, depth)
        if isinstance(value, list) and "items" in schema:
            for i, item in enumerate(value):
                yield from self.faults(item, schema["items"], f"{place}/{i}", depth + 1)

    def _own_faults(self, value: Any, schema: dict[str, Any], place: str) -> Iterator[str]:
        types = schema.get("type", [])
        names = [types] if isinstance(types, str) else types
        known = [_TYPES[name] for name in names if name in _TYPES]
        if known and not any(is_type(value) for is_type in known):
            yield f"{place or '/'} is not of type {' or '.join(names)}"
        choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(choices, list):
            self._n_left -= len(choices)
            if not any(_same(value, choice) for choice in choices):
                yield f"{place or '/'} is none of the allowed values"
        for keyword, (name, measured, holds) in _BOUNDS.items():
            bound = schema.get(keyword)
            if (
                _TYPES["number"](bound)
                and _TYPES[name](value)
                and not holds(measured(value), bound)
            ):
                yield f"{place or '/'} breaks {keyword} {bound}"

    def _combined_faults(
        self, value: Any, schema: dict[str, Any], place: str, depth: int
    ) -> Iterator[str]:
        for part in _list(schema.get("allOf")):
            yield from self.faults(value, part, place, depth + 1)
        for keyword in ("anyOf", "oneOf"):
            parts = _list(schema.get(keyword))
            fits = [not any(self.faults(value, part, place, depth + 1)) for part in parts]
            if parts and (sum(fits) != 1 if keyword == "oneOf" else not any(fits)):
                yield f"{place or '/'} fits {sum(fits)} of the {len(parts)} alternatives"

    def _property_faults(
        self, value: dict[str, Any], schema: dict[str, Any], place: str, depth: int
    ) -> Iterator[str]:
        for name in _list(schema.get("required")):
            if name not in value:
                yield f"{place}/{name} is missing"
        known = schema.get("properties")
        known = known if isinstance(known, dict) else {}
        for name, part in known.items():
            if name in value:
                yield from self.faults(value[name], part, f"{place}/{name}", depth + 1)
        others = [value[name] for name in value if name not in known]
        if "patternProperties" in schema:
            return
        if schema.get("additionalProperties") is False and others:
            yield f"{place or '/'} has {len(others)} properties too many"
        elif isinstance(more := schema.get("additionalProperties"), dict):
            for other in others:
                # Its name is the answer's own word.
                yield from self.faults(other, more, f"{place}/*", depth + 1)

    def _resolved(self, ref: str) -> Any:
        found = self._root
        if not ref.startswith("#"):
            raise _GivenUpError
        for step in ref[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                raise _GivenUpError
            found = found[name]
        return found


def _same(one: Any, other: Any) -> bool:
    """Compare as JSON does, where true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
