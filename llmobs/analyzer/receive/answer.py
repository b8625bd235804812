"""What a sender can be told, in the terms of HTTP, gRPC and google.rpc.Status."""

from __future__ import annotations

import json
import math
from enum import Enum
from typing import Final

from google.protobuf.any_pb2 import Any
from google.rpc import code_pb2  # type: ignore[import-untyped] # ships stubs but no py.typed
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from llmobs.errors import LlmobsError

__all__ = ["Outcome", "RefusedError"]

# A gRPC status message travels in a header, and headers are limited to 8 KiB in all.
_MESSAGE_LIMIT: Final = 1000


class Outcome(Enum):
    """How a request ended: a label for metrics, an HTTP status and a google.rpc.Code.

    OTLP senders try again after 429, 502, 503 and 504, after UNAVAILABLE, and after
    RESOURCE_EXHAUSTED with RetryInfo; after anything else they drop the batch.
    """

    ACCEPTED = ("accepted", 200, code_pb2.OK)
    INVALID = ("invalid", 400, code_pb2.INVALID_ARGUMENT)
    UNAUTHENTICATED = ("unauthenticated", 401, code_pb2.UNAUTHENTICATED)
    FORBIDDEN = ("forbidden", 403, code_pb2.PERMISSION_DENIED)
    NOT_FOUND = ("not_found", 404, code_pb2.NOT_FOUND)
    METHOD = ("method", 405, code_pb2.UNIMPLEMENTED)
    TOO_SLOW = ("too_slow", 408, code_pb2.DEADLINE_EXCEEDED)
    TOO_LARGE = ("too_large", 413, code_pb2.INVALID_ARGUMENT)
    UNSUPPORTED = ("unsupported", 415, code_pb2.INVALID_ARGUMENT)
    OVER_QUOTA = ("over_quota", 429, code_pb2.RESOURCE_EXHAUSTED)
    BUSY = ("busy", 429, code_pb2.RESOURCE_EXHAUSTED)
    FAILED = ("failed", 500, code_pb2.INTERNAL)
    OVERLOADED = ("overloaded", 503, code_pb2.UNAVAILABLE)

    def __init__(self, label: str, http_status: int, code: int) -> None:
        self.label = label
        self.http_status = http_status
        self.code = code


class RefusedError(LlmobsError):
    """A request is not taken; the message says why and what to do.

    Attributes:
        retry_after_s: When to try again, in seconds; None: not at all.
    """

    def __init__(
        self, outcome: Outcome, message: str, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.retry_after_s = retry_after_s

    @property
    def message(self) -> str:
        """The sentence for the sender, cut to what a header can carry."""
        return str(self)[:_MESSAGE_LIMIT]

    @property
    def retry_after_whole_s(self) -> int | None:
        """`retry_after_s` as the HTTP header takes it: whole seconds, at least 1."""
        return None if self.retry_after_s is None else max(1, math.ceil(self.retry_after_s))

    def to_protobuf(self) -> bytes:
        """Return a serialized google.rpc.Status, with RetryInfo where it applies."""
        status = Status(code=self.outcome.code, message=self.message)
        if self.retry_after_s is not None:
            retry = RetryInfo()
            retry.retry_delay.FromMilliseconds(math.ceil(self.retry_after_s * 1000))
            detail = Any()
            detail.Pack(retry)
            status.details.append(detail)
        return bytes(status.SerializeToString())

    def to_json(self) -> bytes:
        """Return the same in protobuf's JSON mapping."""
        status: dict[str, object] = {"code": self.outcome.code, "message": self.message}
        if self.retry_after_s is not None:
            kind = f"type.googleapis.com/{RetryInfo.DESCRIPTOR.full_name}"
            status["details"] = [{"@type": kind, "retryDelay": f"{self.retry_after_s:.3f}s"}]
        return json.dumps(status).encode()
