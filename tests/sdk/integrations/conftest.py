"""A provider for each test, and clients that are as they were after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import llmobs
from tests.sdk.integrations.stub import Stub, stub


@pytest.fixture
def provider() -> Iterator[Stub]:
    with stub() as kept:
        yield kept


@pytest.fixture(autouse=True)
def taken_back() -> Iterator[None]:
    yield
    llmobs.uninstrument()
