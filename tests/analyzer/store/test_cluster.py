"""The statements that make a store, on one server and on a cluster.

`python -m tests.analyzer.store.test_cluster` writes the files of expected statements anew; read
the difference before it is committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from llmobs.analyzer.store.cluster import Cluster, Layout, OneServer
from llmobs.analyzer.store.schema import Retention, statements
from llmobs.errors import ConfigurationError
from tests.clickhouse_http import served

DATA: Final = Path(__file__).parent / "data"
LAYOUTS: Final[dict[str, Layout]] = {
    "one_server": OneServer(),
    "cluster": Cluster("prod", "llmobs"),
}


def ddl(layout: Layout) -> str:
    return ";\n\n".join(statements(layout, Retention(90, 30, 400))) + ";\n"


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_statements_are_those_that_were_read_and_agreed_to(name: str) -> None:
    expected = (DATA / f"{name}.sql").read_text(encoding="utf-8")
    assert ddl(LAYOUTS[name]) == expected, (
        "python -m tests.analyzer.store.test_cluster writes the files anew"
    )


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with served(tmp_path_factory.mktemp("server") / "store") as url:
        opened = clickhouse_connect.get_client(host="127.0.0.1", port=urlsplit(url).port or 0)
        yield opened
        opened.close()


def formatted_by(client: Client, statement: str) -> str:
    (row,) = client.query("SELECT formatQuery({sql:String})", {"sql": statement}).result_rows
    return str(row[0])


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_engine_can_read_every_statement(client: Client, name: str) -> None:
    layout = LAYOUTS[name]
    others = [
        layout.delete("spans", f"trace_id IN (SELECT trace_id FROM {layout.stored('spans')})"),
        layout.delete("segments", "seg = 1"),
        f"SELECT count() FROM {layout.everywhere('segments')}",
        f"SELECT count() FROM {layout.parts}",
        *filter(None, [layout.settle("spans")]),
    ]
    for statement in [*statements(layout, Retention(90, 30, 400)), *others]:
        # Read and written again, it says the same.
        formatted = formatted_by(client, statement)
        assert formatted_by(client, formatted) == formatted
        assert ("ON CLUSTER" in statement) == ("ON CLUSTER" in formatted)


def test_a_cluster_spreads_rows_and_keeps_small_tables_whole() -> None:
    made = statements(LAYOUTS["cluster"], Retention(90, 30, 400))
    tables = {text.split("\n")[0].split()[5]: text for text in made if text.startswith("CREATE T")}
    for name in ("spans", "scores", "events", "metric_points", "minutes"):
        assert "/{shard}/" in tables[f"{name}_local"]
        assert f"Distributed('prod', 'llmobs', '{name}_local', cityHash64(" in tables[name]
        assert "rand()" not in tables[name]
    for name in ("meta", "segments", "scored", "stale_minutes", "erasures"):
        assert "/all/" in tables[name]
        assert "'{shard}-{replica}'" in tables[name]
    assert all(" ON CLUSTER 'prod' " in text.replace("\n", " ") for text in made)
    assert not any("MergeTree" in text and "Replicated" not in text for text in made)


def test_traces_scores_and_events_share_a_shard() -> None:
    made = statements(LAYOUTS["cluster"], Retention(90, 30, 400))
    keys = {text.rpartition("_local', ")[2] for text in made if "Distributed" in text}
    assert keys == {
        "cityHash64(trace_id))",
        "cityHash64(service, name))",
        "cityHash64(service, minute))",
    }


@pytest.mark.parametrize("name", ["", "a b", "a'b", "a\\b", "a\nb", "ä"])
def test_a_name_that_could_end_its_quotes_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="characters"):
        Cluster(name, "llmobs")
    with pytest.raises(ConfigurationError, match="characters"):
        Cluster("prod", name)
    assert "ON CLUSTER '{cluster}'" in Cluster("{cluster}", "llmobs").alter("spans", "")


if __name__ == "__main__":
    for layout_name, known in LAYOUTS.items():
        (DATA / f"{layout_name}.sql").write_text(ddl(known), encoding="utf-8")
