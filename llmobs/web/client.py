"""Asks a running server over its JSON API: the store belongs to one process alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from llmobs.errors import LlmobsError

__all__ = ["Api"]


class Api:
    """One server.

    Args:
        url: Address of the page, such as ``http://127.0.0.1:4319``.
        token: The server's `web_token`, if it has one.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url, self._token = url.rstrip("/"), token

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON answer of ``/api/v1/<path>``.

        Raises:
            LlmobsError: No server answers there, or it refuses; the message says why.
        """
        query = urllib.parse.urlencode({k: v for k, v in parameters.items() if v is not None})
        request = urllib.request.Request(f"{self._url}/api/v1/{path}?{query}")  # noqa: S310
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise LlmobsError(f"{self._url} answered {error.code}: {_reason(error)}") from error
        except OSError as error:
            raise LlmobsError(
                f"no server at {self._url} ({error}); start one with `llmobs up`, "
                "or name it with --url or LLMOBS_URL"
            ) from error


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        body = json.load(error)
        return " — ".join(str(body[key]) for key in ("error", "hint") if body.get(key))
    except (ValueError, AttributeError):
        return error.reason
