"""Hand-made texts for what the corpora lack: harmless uses of the words that attacks use.

``templates.json`` holds templates and words for their blanks. They were written knowing what
public sets of hard negatives look like (NotInject's trigger words; XSTest, whose "kill a Python
process" is among them; Madlibs' groups of people) and after false alarms on held-out answers
with code, so figures on such texts flatter.

Kinds: ``harmless_instructions`` (full of the words of injections), ``harmless_figures``
(processes are killed, opponents crushed), ``harmless_code``, ``harmless_documents`` (the shape
of what attacks hide in), ``kind_remarks`` and ``hateful_remarks`` (the same groups of people in
both, so that a group's name decides nothing), ``refusals`` (the set phrases of today's models),
``apologetic_answers`` (sorry, but nothing is refused), ``attacks`` and ``harmless_requests`` (the
same wishes with and without an attack on the rules; some in German, Spanish and French),
``planted_orders`` (what somebody hides in a document; the kinds of BIPIA's attacks were known),
``severe_remarks`` and ``sober_remarks`` (threats, self-harm and sex, and the same matters in decent
words).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["fill", "groups"]


def fill(kind: str, n: int, rng: random.Random) -> list[str]:
    """Return `n` texts of one kind, templates and words drawn at random."""
    templates, words = _read()[kind]["templates"], _read()[kind]["words"]
    return [_filled(rng.choice(templates), words, rng) for _ in range(n)]


def groups() -> list[str]:
    """Return the names of groups of people that the remarks are about."""
    return list(_read()["groups"])


@cache
def _read() -> dict[str, Any]:
    path = files("llmobs.measures.text.train").joinpath("templates.json")
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def _filled(template: str, words: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    def draw(blank: re.Match[str]) -> str:
        # What was drawn may hold blanks of its own.
        return _filled(rng.choice(words[blank[1]]), words, rng) if blank[1] in words else blank[0]

    return re.sub(r"\{(\w+)\}", draw, template)
