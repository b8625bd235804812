"""What all lives share before they are forked: imports and tables of texts.

Nothing of chDB is in it: its engine must not be forked, each life starts its own.
"""

from __future__ import annotations

from llmobs.measures.text import warm
from tests.faults import life

__all__ = ["life"]

warm()
