"""Errors of the API, each with the status and the words that the reader gets."""

from __future__ import annotations

from llmobs.errors import LlmobsError

__all__ = ["ApiError", "BadQueryError", "ForbiddenError", "NotFoundError", "UnavailableError"]


class ApiError(LlmobsError):
    """A request that gets ``{error, hint}`` instead of data.

    Attributes:
        status: HTTP status of the answer.
        hint: What the caller can do about it.
    """

    status = 500

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class BadQueryError(ApiError):
    """A query parameter is unknown or can't be read."""

    status = 400


class ForbiddenError(ApiError):
    """The server is not set up to let anyone do this."""

    status = 403


class NotFoundError(ApiError):
    """There is nothing of that id, or no such address."""

    status = 404


class UnavailableError(ApiError):
    """A part of the server can't do it now."""

    status = 503
