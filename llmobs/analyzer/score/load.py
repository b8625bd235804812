"""Finds scorers: by entry point, or in a file of the operator's."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final

from llmobs import registry
from llmobs.analyzer.score.base import Scorer
from llmobs.errors import ConfigurationError

__all__ = ["GROUP", "load_file", "load_scorers"]

GROUP: Final = "llmobs.scorers"
"""The entry-point group. An entry names a class to be made without arguments, or a scorer."""


def load_scorers(names: Sequence[str] | None = None, files: Sequence[Path] = ()) -> list[Scorer]:
    """Load scorers by entry point, then those of files.

    Args:
        names: Which entry points; None: all that are installed.
        files: Python files that define scorers; see `load_file`.

    Raises:
        ConfigurationError: An unknown name, or a scorer or a file that can't be loaded.
    """
    named = [_load(name) for name in (registry.names(GROUP) if names is None else names)]
    return named + [scorer for path in files for scorer in load_file(path)]


def load_file(path: Path) -> list[Scorer]:
    """Run a Python file and return the scorers among its names, in their order.

    Raises:
        ConfigurationError: It can't be read, raises, or defines no scorer.
    """
    # Two files of one name are two modules.
    name = f"llmobs_scorers_{path.stem}_{zlib.crc32(str(path.absolute()).encode()):08x}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigurationError(f"no Python file of scorers at {path}")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # someone else's code
        del sys.modules[name]
        raise ConfigurationError(
            f"scorers in {path} can't be loaded: {type(error).__name__}: {error}"
        ) from error
    # A scorer with two names is one scorer.
    found = {id(value): value for value in vars(module).values() if _is_scorer(value)}
    if not found:
        raise ConfigurationError(
            f"{path} defines no scorer; decorate a function with @llmobs.scorer"
        )
    return list(found.values())


def _load(name: str) -> Scorer:
    loaded = registry.load(GROUP, name)
    if _is_scorer(loaded):
        scorer: Scorer = loaded
        return scorer
    try:
        made: Scorer = loaded()
    except Exception as error:  # someone else's code
        raise ConfigurationError(
            f"scorer {name!r} can't be made: {type(error).__name__}; leave it out of `scorers`"
        ) from error
    return made


def _is_scorer(value: Any) -> bool:
    return not isinstance(value, type) and all(
        hasattr(value, part) for part in ("name", "version", "targets", "score")
    )
