import pytest

from llmobs.analyzer import decode


@pytest.fixture(scope="session")
def warm() -> None:
    """The compiled scan; the first run on a machine compiles it for some 20 seconds."""
    assert decode.warm()
