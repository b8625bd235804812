"""Which arguments of a function are prompt, model and settings: found once, read at every call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from llmobs.sdk.content import freeze, pack
from llmobs.sdk.describe import REQUEST_ATTRIBUTES
from llmobs.sdk.span import Call, Kind

__all__ = ["ArgumentReader"]

# Names under which prompts and queries come, the most telling first.
INPUT_NAMES: Final = (
    "messages", "input", "prompt", "question", "query", "contents", "user_input", "text", "message",
)  # fmt: skip
SYSTEM_NAMES: Final = ("system", "instructions", "system_prompt", "system_instruction")
REQUEST_NAMES: Final = frozenset(REQUEST_ATTRIBUTES) | {"stop", "stop_sequences", "stream"}

_MISSING: Final = object()


class _Parameter:
    """Where one argument is found: by name, by place, or in its default."""

    __slots__ = ("default", "index", "name")

    def __init__(self, name: str, index: int | None, default: Any) -> None:
        self.name = name
        self.index = index
        self.default = default

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self.name in kwargs:
            return kwargs[self.name]
        if self.index is not None and self.index < len(args):
            return args[self.index]
        return self.default


class ArgumentReader:
    """Reads the calls of one function.

    Args:
        function: The function; one whose signature can't be had shows positional arguments only.
        kind: A chat, an embedding and a retrieval have a request; a tool shows all arguments.
    """

    def __init__(self, function: Callable[..., Any], kind: Kind) -> None:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # some builtins have none
            parameters = []
        by_place = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
        self._names = [p.name for p in by_place]
        # The object or class that a method is called on is no argument of the call.
        self._n_bound = 1 if self._names and self._names[0] in {"self", "cls"} else 0
        self._takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters) or not parameters
        self._has_request = kind in {"chat", "embeddings", "retrieval", "rerank"}
        self._shows_all = kind in {"tool", "mcp"}
        self._snapshot = pack if kind == "chat" else freeze
        found = {p.name: self._find(p) for p in parameters if p.kind is not p.VAR_KEYWORD}
        self._request = [p for name, p in found.items() if name in REQUEST_NAMES]
        self._system = {name: p for name, p in found.items() if name in SYSTEM_NAMES}
        self._input = next((found[name] for name in INPUT_NAMES if name in found), None)
        if self._input is None and self._has_request:
            rest = [n for n in self._names[self._n_bound :] if n not in REQUEST_NAMES]
            self._input = found[rest[0]] if rest else None

        # Most calls leave model and settings at their defaults: what these say is made once.
        at = [p.index for p in (*self._request, *self._system.values()) if p.index is not None]
        self._n_before_request = min(at, default=len(self._names))
        defaults = {p.name: p.default for p in self._request}
        if self._system:
            defaults["system"] = next(iter(self._system.values())).default
        self._request_by_default = self._kept(defaults)[0]
        # Where the input stands in such a call; out of reach where only a name finds it.
        index = None if self._input is None or self._shows_all else self._input.index
        self._plain_index = len(self._names) if index is None else index

    def _find(self, parameter: inspect.Parameter) -> _Parameter:
        name = parameter.name
        index = self._names.index(name) if name in self._names else None
        empty = parameter.default is inspect.Parameter.empty
        return _Parameter(name, index, _MISSING if empty else parameter.default)

    def read(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, with_content: bool
    ) -> tuple[Call | None, int]:
        """Take a snapshot of a call.

        Args:
            args: Positional arguments.
            kwargs: Arguments by name.
            with_content: Whether prompts and tools' arguments may be looked at.

        Returns:
            The snapshot, None where there is nothing to see; and about how many bytes it holds.
        """
        if not (self._has_request or with_content):
            return None, 0
        if with_content and not kwargs and self._plain_index < len(args) <= self._n_before_request:
            value, size = self._snapshot(args[self._plain_index])
            return Call(value, self._request_by_default), size
        call = Call()
        size = 0
        if self._has_request:
            call.request, size = self._read_request(args, kwargs, with_content)
        if not with_content:
            return call, size
        value = _MISSING if self._shows_all else self._read_input(args, kwargs)
        if value is not _MISSING:
            call.input, more = self._snapshot(value)
        else:
            call.arguments, more = freeze(self._all(args, kwargs))
        return call, size + more

    def _read_request(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], with_content: bool
    ) -> tuple[dict[str, Any], int]:
        if not kwargs and len(args) <= self._n_before_request:
            return self._request_by_default, 0
        values = {p.name: p.read(args, kwargs) for p in self._request}
        if self._takes_any:
            values |= {name: kwargs[name] for name in kwargs if name in REQUEST_NAMES}
        if with_content:
            for name in SYSTEM_NAMES:
                if name in kwargs and (self._takes_any or name in self._system):
                    values["system"] = kwargs[name]
            for parameter in self._system.values():
                values.setdefault("system", parameter.read(args, kwargs))
        return self._kept(values)

    @staticmethod
    def _kept(values: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        request: dict[str, Any] = {}
        size = 0
        for name, value in values.items():
            if value is _MISSING or value is None:
                continue
            kind = type(value)
            if kind is str or kind is int or kind is float or kind is bool:
                request[name] = value
            else:
                kept, more = freeze(value)
                if type(kept) is not str or isinstance(value, str):  # not a mark as NOT_GIVEN
                    request[name] = kept
                    size += more
        return request, size

    def _read_input(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._takes_any:
            for name in INPUT_NAMES:
                if name in kwargs:
                    return kwargs[name]
        return _MISSING if self._input is None else self._input.read(args, kwargs)

    def _all(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        named = dict(zip(self._names[self._n_bound :], args[self._n_bound :], strict=False))
        if len(args) > len(self._names):
            named["args"] = list(args[len(self._names) :])
        return {**named, **kwargs}
