"""Asks a running server over its JSON API: the store belongs to one process alone."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import IO, Any, Final

from llmobs.errors import LlmobsError

__all__ = ["Api"]

_TIMEOUT_S: Final = 30.0
# A deletion rewrites what it touches; a piece of an export is some ten thousand rows.
_LONG_TIMEOUT_S: Final = 600.0
_PIECE_BYTES: Final = 1 << 20


class Api:
    """One server.

    Args:
        url: Address of the page, such as ``http://127.0.0.1:4319``.
        token: The server's `web_token`, if it has one; to delete or to rescore, its
            `admin_token`.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url, self._token = url.rstrip("/"), token

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON answer of ``/api/v1/<path>``.

        Raises:
            LlmobsError: No server answers there, or it refuses; the message says why.
        """
        with self._open("GET", path, parameters, _TIMEOUT_S) as answer:
            return json.loads(self._read(answer))

    def delete(self, path: str) -> Any:
        """Delete what is at ``/api/v1/<path>`` and return the JSON answer; raises as `get`."""
        with self._open("DELETE", path, {}, _LONG_TIMEOUT_S) as answer:
            return json.loads(self._read(answer))

    def post(self, path: str, **parameters: Any) -> Any:
        """Have ``/api/v1/<path>`` do something and return the JSON answer; raises as `get`."""
        with self._open("POST", path, parameters, _LONG_TIMEOUT_S) as answer:
            return json.loads(self._read(answer))

    def download(self, path: str, file: IO[bytes], **parameters: Any) -> Iterator[int]:
        """Write the answer of ``/api/v1/<path>`` to a file, piece by piece.

        Yields:
            The size of each piece, in bytes.

        Raises:
            LlmobsError: As `get`; also when the server stops in the middle.
            OSError: The file does not take it.
        """
        with self._open("GET", path, parameters, _LONG_TIMEOUT_S) as answer:
            while piece := self._read(answer, _PIECE_BYTES):
                file.write(piece)
                yield len(piece)

    def _open(
        self, method: str, path: str, parameters: dict[str, Any], timeout_s: float
    ) -> http.client.HTTPResponse:
        query = urllib.parse.urlencode({k: v for k, v in parameters.items() if v is not None})
        address = f"{self._url}/api/v1/{path}?{query}"
        request = urllib.request.Request(address, method=method)  # noqa: S310
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            answer: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310
                request, timeout=timeout_s
            )
        except urllib.error.HTTPError as error:
            raise LlmobsError(f"{self._url} answered {error.code}: {_reason(error)}") from error
        except (OSError, http.client.HTTPException) as error:
            raise LlmobsError(
                f"no server at {self._url} ({error}); start one with `llmobs up`, "
                "or name it with --url or LLMOBS_URL"
            ) from error
        return answer

    def _read(self, answer: http.client.HTTPResponse, n_bytes: int | None = None) -> bytes:
        try:
            return answer.read(n_bytes)
        except (OSError, http.client.HTTPException) as error:
            raise LlmobsError(
                f"{self._url} stopped in the middle of its answer; its log has the reason"
            ) from error


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        body = json.load(error)
        return " — ".join(str(body[key]) for key in ("error", "hint") if body.get(key))
    except (ValueError, AttributeError):
        return error.reason
