"""Spans of every producer to one set of columns; `mapping` is the table of names."""

from llmobs.analyzer.normalize.spans import normalize

__all__ = ["normalize"]
