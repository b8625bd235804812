"""The labelled sets, and which of their rows training may see."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Corpora", "Example", "digest", "is_held_out", "negatives", "padded"]


@dataclass(frozen=True)
class Example:
    """A text to learn from.

    Attributes:
        group: Examples of one group are never on both sides of a cross-fit.
    """

    text: str
    label: int
    group: int


def digest(text: str) -> int:
    """Return the text's SHA-256 as an integer: the same on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest(), "big")


def is_held_out(text: str) -> bool:
    """Tell whether a text belongs to the tenth that is only ever tested on."""
    return digest(text) % 10 == 0


@dataclass(frozen=True)
class Corpora:
    """A folder of ``NAME.jsonl.gz`` files, one row a line: ``text``, ``label`` and more by file.

    Attributes:
        held_out: Whether to read the tenth for testing, or the rest for training.
        left_out: Files taken for empty, to see what is learned without them.
    """

    folder: Path
    held_out: bool = False
    left_out: frozenset[str] = frozenset()

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return this part's rows of a file, in its order."""
        if name in self.left_out:
            return []
        with gzip.open(self.folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return [row for row in rows if is_held_out(row["text"]) == self.held_out]

    def examples(self, *names: str) -> list[Example]:
        """Return labelled rows of some files."""
        return [
            Example(row["text"], int(row["label"]), digest(row["text"]) // 10)
            for name in names
            for row in self.rows(name)
        ]

    def related(self, name: str, column: str = "text") -> list[str]:
        """Return queries or responses of the pairs that belong together, never held-out text."""
        rows = [row for row in self.rows(name) if int(row["label"]) == 1]
        return [row[column] for row in rows if is_held_out(row[column]) == self.held_out]


def negatives(texts: Iterable[str]) -> list[Example]:
    """Label texts as having nothing of what is looked for."""
    return [Example(text, 0, digest(text) // 10) for text in texts]


def padded(text: str | None, pool: Sequence[str], n_words: int, rng: random.Random) -> str:
    """Join texts of a pool to about `n_words`, with one text put somewhere between them."""
    parts: list[str] = []
    length = 0
    while length < n_words:
        parts.append(rng.choice(pool))
        length += len(parts[-1].split())
    if text is not None:
        parts.insert(rng.randint(0, len(parts)), text)
    return rng.choice((" ", "\n", "\n\n")).join(parts)
