"""Spans of every producer to one set of columns; `mapping` is the table of names."""

from llmobs.analyzer.normalize.join import (
    CONTENT_EVENTS,
    content_of,
    join_content,
    join_responses,
    without_content,
)
from llmobs.analyzer.normalize.spans import normalize

__all__ = [
    "CONTENT_EVENTS",
    "content_of",
    "join_content",
    "join_responses",
    "normalize",
    "without_content",
]
