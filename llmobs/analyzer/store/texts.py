"""The index of texts: a search reads the spans that it finds, and not every text of a day.

It holds the words of prompts and answers (runs of letters and digits, in lower case). The
filter ``text`` promises substrings, of any characters, with an index or without: the index
only says which spans hold a word of what was searched for, or a word with that inside, and the
texts of those are looked at. What has no run of four letters or digits is searched for as
without an index.
"""

from __future__ import annotations

import re
from typing import Final

from llmobs.analyzer.store.clients import Clients

__all__ = ["NEAR", "IndexedText", "index_texts"]

# One index over both texts: the engine takes no index for "in the one or in the other".
_TEXTS: Final = "lowerUTF8(concat(input_text, '\\n', output_text))"
NEAR: Final = f"{_TEXTS} LIKE {{near:String}}"
"""Condition: the span is among those that the index finds; see `IndexedText.near`."""

# The engine looks for shorter ones in every text (`text_index_like_min_pattern_length`).
_RUN: Final = re.compile("[0-9A-Za-z]{4,}")


class IndexedText(str):
    """What is searched for in texts that have an index."""

    __slots__ = ()

    @property
    def near(self) -> str | None:
        """Return a pattern that fits wherever the text occurs; None: the index can't help.

        The longest run of letters and digits: it is the rarest, most times.
        """
        run = max(_RUN.findall(self), key=len, default=None)
        return f"%{run.lower()}%" if run else None


def index_texts(clients: Clients, wanted: bool) -> None:
    """Make the index of texts, or drop it.

    For 400 characters of text it takes 130 bytes a span, about as much as the span itself, and
    4 µs of CPU. Spans that are stored already are indexed meanwhile; until then their texts are
    read.

    Raises:
        StoreError: The engine failed to.
    """
    (row,) = clients.ask(
        """SELECT count() > 0 AS is_there FROM system.data_skipping_indices
        WHERE database = currentDatabase() AND table IN ('spans', 'spans_local')
          AND name = 'ix_text'"""
    )
    if wanted == bool(row["is_there"]):
        return
    changes = (
        (
            f"ADD INDEX IF NOT EXISTS ix_text {_TEXTS} TYPE text(tokenizer = 'splitByNonAlpha')",
            "MATERIALIZE INDEX ix_text SETTINGS mutations_sync = 0",
        )
        if wanted
        else ("DROP INDEX IF EXISTS ix_text",)
    )
    for change in changes:
        clients.command(clients.layout.alter("spans", change))
