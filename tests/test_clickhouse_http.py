"""The tests' ClickHouse server does what ClickHouse's own client asks of one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.clickhouse_http import served


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with served(tmp_path_factory.mktemp("server") / "store") as url:
        yield urlsplit(url).port or 0


def connect(port: int, **options: Any) -> Client:
    return clickhouse_connect.get_client(
        host="127.0.0.1", port=port, autogenerate_session_id=False, **options
    )


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    opened = connect(port)
    opened.command("CREATE OR REPLACE TABLE t (a Int64, b String) ENGINE = MergeTree ORDER BY a")
    yield opened
    opened.close()


@pytest.mark.parametrize("codec", [False, "gzip", "zstd", "lz4"])
def test_rows_go_in_and_out_packed_or_not(client: Client, port: int, codec: bool | str) -> None:
    packing = connect(port, compress=codec)
    rows = [(i, f"row {i} " * 20) for i in range(2_000)]
    packing.insert("t", rows, column_names=["a", "b"])
    packing.insert_arrow("t", pa.table({"a": [-1], "b": ["arrow"]}))
    assert packing.query("SELECT a, b FROM t ORDER BY a").result_rows == [(-1, "arrow"), *rows]
    with packing.query_row_block_stream("SELECT a FROM t") as blocks:
        assert sum(len(block) for block in blocks) == 2_001
    packing.close()


def test_parameters_are_bound_and_may_be_long(client: Client) -> None:
    client.insert("t", [(1, "it's"), (2, "\\N")], column_names=["a", "b"])
    sql = "SELECT a FROM t WHERE b IN (SELECT arrayJoin({texts:Array(String)}))"
    texts = ["it's", *(f"text {i}" for i in range(20_000))]
    assert client.query(sql, {"texts": texts}).result_rows == [(1,)]
    assert client.command("SELECT count() FROM t WHERE a = {a:Int64}", {"a": 2}) == 1


def test_settings_hold_for_their_statement_alone(client: Client) -> None:
    asked = "SELECT getSetting('max_threads') AS n"
    usual = client.query(asked).result_rows
    assert client.query(asked, settings={"max_threads": 7}).result_rows == [(7,)]
    assert client.query(asked).result_rows == usual


def test_an_error_has_its_code(client: Client) -> None:
    for work in (
        lambda: client.query("SELECT nothing FROM t"),
        lambda: client.command("SELECT 1 FROM nowhere"),
        lambda: client.insert_arrow("nowhere", pa.table({"a": [1]})),
    ):
        with pytest.raises(DatabaseError) as caught:
            work()
        assert caught.value.code in {47, 60}
    assert client.ping()


def test_threads_insert_and_ask_at_once(client: Client, port: int) -> None:
    def work(number: int) -> None:
        own = connect(port)
        for i in range(10):
            own.insert_arrow("t", pa.table({"a": [number * 100 + i], "b": [str(number)]}))
            (row,) = own.query(f"SELECT count() FROM t WHERE b = '{number}'").result_rows
            assert row == (i + 1,)
        own.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert client.query("SELECT count(), uniqExact(a) FROM t").result_rows == [(60, 60)]


def test_what_was_inserted_is_there_in_the_next_life(tmp_path: Path) -> None:
    for life in range(2):
        with served(tmp_path / "store") as url:
            client = connect(urlsplit(url).port or 0)
            client.command(
                "CREATE TABLE IF NOT EXISTS kept (a Int64) ENGINE = MergeTree ORDER BY a"
            )
            client.insert("kept", [(life,)], column_names=["a"])
            assert client.command("SELECT count() FROM kept") == life + 1
            client.close()
