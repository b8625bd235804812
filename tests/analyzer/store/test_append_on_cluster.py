"""Everything of `test_append` and `test_export`, with distributed tables over the wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.analyzer.store import test_append, test_export
from tests.analyzer.store.servers import ON_CLUSTER, fresh_database

pytestmark = ON_CLUSTER

# Those that say nothing about a server, look into one node's own tables, or take long.
IN_PROCESS_ALONE = {
    "test_a_clock_of_1970_or_2100_is_stored_and_found",
    "test_a_closed_store_says_so_and_closes_twice",
    "test_a_directory_in_use_is_refused",
    "test_a_large_segment_is_cut_into_blocks_and_stays_whole",
    "test_a_retention_of_no_days_is_refused",
    "test_a_url_that_means_nothing_is_refused_with_an_example",
    "test_old_rows_go_when_their_time_is_over",
    "test_retention_can_be_changed_and_reaches_every_table",
    "test_the_window_of_ids_forgets_the_oldest_only",
    "test_threads_may_ask_while_one_appends_and_one_analyzes",
}
globals().update(
    {
        name: it
        for module in (test_append, test_export)
        for name, it in vars(module).items()
        if name.startswith("test_") and name not in IN_PROCESS_ALONE
    }
)
folder = test_export.folder


@pytest.fixture
def store_url(server_url: str) -> Iterator[str]:
    with fresh_database(server_url) as url:
        yield url
