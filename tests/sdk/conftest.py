"""A receiver for each test, and an SDK that is shut down after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import llmobs
from tests.sdk.receiver import Receiver, receiver

Start = Callable[..., Receiver]


@pytest.fixture
def otlp() -> Iterator[Receiver]:
    with receiver() as kept:
        yield kept


@pytest.fixture(autouse=True)
def end() -> Iterator[None]:
    yield
    llmobs.shutdown(1)


@pytest.fixture
def start(otlp: Receiver) -> Start:
    """Initialize with full content and other options; return the receiver."""

    def begin(**options: Any) -> Receiver:
        llmobs.init("shop", endpoint=otlp.url, **{"capture_content": "full", **options})
        return otlp

    return begin
