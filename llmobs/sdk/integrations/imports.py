"""Act when a library comes to be imported: to import it at the start would cost seconds."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

from llmobs.sdk.guarded import guarded

__all__ = ["forget", "when_imported"]

Act = Callable[[ModuleType], None]


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing itself; lets the others find what is waited for, and acts after its import."""

    def __init__(self) -> None:
        self.waiting: dict[str, Act] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        act = self.waiting.get(name)
        if act is None:
            return None
        for finder in sys.meta_path.copy():
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                # It waits on until it has run: to ask for the spec alone is no import.
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, act)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """The library's own loader in all but the step that it adds after the module has run."""

    def __init__(self, inner: Any, act: Act) -> None:
        self._inner = inner
        self._act = act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with guarded("hand an import on"):
            module.__loader__ = self._inner
            if module.__spec__ is not None:
                module.__spec__.loader = self._inner
        self._inner.exec_module(module)
        _finder.waiting.pop(module.__name__, None)
        with guarded("act after an import"):
            self._act(module)


_finder: Final = _Finder()


def when_imported(name: str, act: Act) -> None:
    """Call a function with a top-level module once it has been imported; it is not yet."""
    _finder.waiting[name] = act
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def forget(name: str) -> None:
    """Wait for a module no longer."""
    _finder.waiting.pop(name, None)
    if not _finder.waiting and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
