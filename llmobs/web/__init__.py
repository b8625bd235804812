"""The page and the JSON API over the store."""

from __future__ import annotations

from llmobs.web.app import create_app

__all__ = ["create_app"]
