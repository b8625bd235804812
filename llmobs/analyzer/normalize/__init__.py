"""Spans of every producer to one set of columns; `mapping` is the table of names."""

from llmobs.analyzer.normalize.join import CONTENT_EVENTS, join_content, join_responses
from llmobs.analyzer.normalize.spans import normalize

__all__ = ["CONTENT_EVENTS", "join_content", "join_responses", "normalize"]
