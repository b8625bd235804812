"""Databases on servers, for tests that run the store over the wire."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import clickhouse_connect
import pytest

__all__ = ["ON_CLUSTER", "SERVERS", "YOURS", "fresh_database"]

YOURS: Final = os.environ.get("LLMOBS_TEST_CLICKHOUSE_URL", "")
SERVERS: Final = ("server", "cluster", *(["yours"] if YOURS else []))
"""Chdb as a server, the same as the one node of a cluster, and what an operator names."""
ON_CLUSTER: Final = pytest.mark.parametrize(
    "server_url", SERVERS[1:], indirect=True, scope="session"
)
"""Mark: not on one server, which gives what the engine in process gives."""


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """Make a database of a test's own and yield the store's URL for it."""
    parts = urlsplit(server_url)
    name = f"llmobs_test_{secrets.token_hex(4)}"
    cluster = parse_qs(parts.query).get("cluster", [""])[0]
    on = f" ON CLUSTER '{cluster}'" if cluster else ""
    client = clickhouse_connect.get_client(
        host=parts.hostname,
        port=parts.port or 0,
        interface="https" if parts.scheme == "clickhouses" else "http",
        username=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
    )
    try:
        client.command(f"CREATE DATABASE {name}{on}")
        yield parts._replace(path=f"/{name}").geturl()
        client.command(f"DROP DATABASE {name}{on} SYNC")
    finally:
        client.close()
