"""Span batches from a few columns; the rest is empty."""

from __future__ import annotations

from llmobs.testing import chat, spans

__all__ = ["chat", "spans"]
