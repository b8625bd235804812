"""What an integration is: which library, which versions, and what is replaced in it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, Final

from llmobs.sdk.guarded import guarded, report

__all__ = ["Integration", "Options", "Patches", "numbers"]

_NUMBERS: Final = re.compile(r"(\d+)(?:\.(\d+))?")


@dataclass(slots=True)
class Options:
    """What the application allows the integrations to do.

    Attributes:
        stream_usage: Whether OpenAI may be asked for the usage of streams whose caller has not
            asked for it.
    """

    stream_usage: bool = False


class Patches:
    """Attributes of classes and modules that were replaced. What others put on top stays."""

    def __init__(self) -> None:
        self._made: list[tuple[Any, str, Any, Any]] = []

    def __len__(self) -> int:
        return len(self._made)

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace an attribute by what `make` returns for the one that is there.

        Raises:
            AttributeError: The owner has no such attribute of its own.
        """
        original = vars(owner).get(name)
        if original is None:
            raise AttributeError(f"{owner!r} has no {name}")
        replaced = make(original)
        setattr(owner, name, replaced)
        self._made.append((owner, name, original, replaced))

    def put_back(self) -> None:
        """Restore the originals, the last replaced first."""
        while self._made:
            owner, name, original, replaced = self._made.pop()
            if vars(owner).get(name) is replaced:
                setattr(owner, name, original)


@dataclass(slots=True)
class Integration:
    """One library's.

    Attributes:
        name: As the application says it, and as the official instrumentation is called.
        module: Top module of the library.
        floor: First version that is supported.
        ceiling: First version that nobody has tried: such a one is left alone.
        install: Replaces what has to be, in the imported module.
        is_on: Whether its wrappers do anything. What others have wrapped again can't be taken out
            and only becomes still.
    """

    name: str
    module: str
    floor: tuple[int, int]
    ceiling: tuple[int, int]
    install: Callable[[ModuleType, Integration, Patches], None]
    options: Options = field(default_factory=Options)
    is_on: bool = False
    _patches: Patches = field(default_factory=Patches)

    @property
    def is_imported(self) -> bool:
        """Whether the library is there to be patched, imported wholly."""
        module = sys.modules.get(self.module)
        spec = getattr(module, "__spec__", None)
        return module is not None and not getattr(spec, "_initializing", False)

    def is_supported(self) -> bool:
        """Return whether the installed version is one of those that are known; say where not."""
        try:
            installed = version(self.module)
        except PackageNotFoundError:
            return False
        if self.floor <= numbers(installed) < self.ceiling:
            return True
        report("client of an unknown version is left alone", client=self.name, version=installed)
        return False

    def apply(self, module: ModuleType) -> None:
        """Patch the imported library. One that is not built as expected is left as it is."""
        if not self.is_on or len(self._patches):
            return
        with guarded(f"instrument {self.name}"):
            try:
                self.install(module, self, self._patches)
            except (AttributeError, ImportError):
                self._patches.put_back()
                self.is_on = False
                report("client of an unknown shape is left alone", client=self.name)

    def remove(self) -> None:
        """Put everything back."""
        self.is_on = False
        with guarded(f"uninstrument {self.name}"):
            self._patches.put_back()


def numbers(text: str) -> tuple[int, int]:
    """Return major and minor number of a version, (0, 0) of one that has none."""
    found = _NUMBERS.match(text)
    return (0, 0) if found is None else (int(found[1]), int(found[2] or 0))
