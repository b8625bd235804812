"""Every question of `test_queries`, asked of distributed tables over the wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmobs.analyzer.store import ClickHouseStore, open_store
from tests.analyzer.store import test_queries
from tests.analyzer.store.servers import ON_CLUSTER, fresh_database

pytestmark = ON_CLUSTER

globals().update({name: it for name, it in vars(test_queries).items() if name.startswith("test_")})


@pytest.fixture(scope="module")
def store(server_url: str) -> Iterator[ClickHouseStore]:
    with fresh_database(server_url) as url:
        opened = open_store(url)
        test_queries.fill(opened)
        yield opened
        opened.close()
