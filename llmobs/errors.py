"""One family of errors: what is wrong, with the value seen, and what to do."""

from __future__ import annotations

__all__ = [
    "BadRequestError",
    "ConfigurationError",
    "LlmobsError",
    "OverloadedError",
    "StoreError",
    "TooLargeError",
]


class LlmobsError(Exception):
    """Any error that llmobs raises on purpose."""


class ConfigurationError(LlmobsError):
    """A setting, an argument or a file is wrong; the message says how to mend it."""


class BadRequestError(LlmobsError):
    """A sender's bytes can't be read as what they claim to be (HTTP 400, gRPC INVALID_ARGUMENT)."""


class TooLargeError(LlmobsError):
    """A request is larger than allowed, packed or unpacked (HTTP 413, gRPC INVALID_ARGUMENT)."""


class OverloadedError(LlmobsError):
    """The server can't take more now; the sender should try again (429/503 with Retry-After).

    Attributes:
        retry_after_s: How long the sender should wait, in seconds.
    """

    def __init__(self, message: str, *, retry_after_s: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreError(LlmobsError):
    """The store refused or failed; nothing was acknowledged that it does not hold."""
