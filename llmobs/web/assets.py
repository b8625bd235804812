"""The files of the page, held in memory: nothing else can be asked for."""

from __future__ import annotations

import hashlib
import html
import mimetypes
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from llmobs.web.errors import NotFoundError

__all__ = ["Assets"]

# `mimetypes` asks the machine, and machines disagree about these two; modules need the first.
_TYPES: Final = {"js": "text/javascript", "svg": "image/svg+xml"}


class Assets:
    """Style sheets and scripts below an address that changes with their content.

    Args:
        base_path: What the page's addresses begin with, "" or like ``/llmobs``.
    """

    def __init__(self, base_path: str) -> None:
        self._files = dict(_read(files("llmobs.web") / "static", ""))
        digest = hashlib.sha256()
        for name, content in sorted(self._files.items()):
            digest.update(name.encode() + b"\0" + content)
        self.version = digest.hexdigest()[:12]
        page = self._files.pop("index.html").decode()
        self._page = page.replace("{{base}}", html.escape(base_path)).replace(
            "{{assets}}", html.escape(f"{base_path}/assets/{self.version}")
        )

    def page(self, status_code: int = 200) -> Response:
        """Return the page; the browser asks again each time, since it names the version."""
        return HTMLResponse(self._page, status_code, headers={"Cache-Control": "no-cache"})

    async def serve(self, request: Request) -> Response:
        """Answer ``/assets/{version}/{name}``; a version never changes, so it may be kept."""
        name = request.path_params["name"]
        content = self._files.get(name)
        if content is None or request.path_params["version"] != self.version:
            raise NotFoundError(f"no asset {name!r}", hint="Reload the page: it has a new version.")
        kind = _TYPES.get(name.rpartition(".")[2]) or mimetypes.guess_type(name)[0]
        return Response(
            content,
            media_type=kind or "application/octet-stream",
            headers={"Cache-Control": "public, max-age=31536000, immutable"},
        )


def _read(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        name = prefix + entry.name
        found += _read(entry, f"{name}/") if entry.is_dir() else [(name, entry.read_bytes())]
    return found
