"""Servers that speak ClickHouse's HTTP interface."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.analyzer.store.servers import SERVERS, YOURS
from tests.clickhouse_http import served


@pytest.fixture(scope="session", params=SERVERS)
def server_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Store URL of a running server; see `servers.SERVERS`."""
    if request.param == "yours":
        yield YOURS
        return
    path = tmp_path_factory.mktemp("server") / "store"
    with served(path, cluster="llmobs" if request.param == "cluster" else "") as url:
        yield url
