"""What an earlier version scored is scored again, and everybody sees the newer version alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from llmobs.analyzer.store import open_state, open_store
from llmobs.analyzer.store.base import NOTHING, Row
from llmobs.errors import ConfigurationError
from tests.analyzer.rescoring import ALL, N_SEGMENTS, World, filled, of_version


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, World, list[Row]]]:
    """Return the engine before an upgrade, the one after, and what its rescoring said."""
    folder = tmp_path_factory.mktemp("engine")
    store, state = open_store(f"chdb://{folder / 'store'}"), open_state(folder / "state.db")
    filled(store)
    before = World(store, state, of_version("1", 1))
    before.analyze()
    assert before.totals() == {"long": (12, 12)}
    assert len(store.traces(*ALL, 100, flag="long")) == 12
    time.sleep(1.1)  # the store knows the second in which a score was stored
    after = World(store, state, of_version("2", 1000))
    yield before, after, after.rescore()
    state.close()
    store.close()


def test_every_span_is_scored_by_the_version_of_now_and_the_old_scores_are_kept(
    worlds: tuple[World, World, list[Row]],
) -> None:
    _, after, said = worlds
    assert sum(row["n_spans"] for row in said) == sum(row["n_scores"] for row in said) == 12
    assert said[-1]["after"] == NOTHING
    assert said[-1]["n_left"] == 0
    assert said[-1]["versions"] == {"long": "2"}
    assert after.store.sizes()["scores"] == 24


def test_people_see_the_version_that_was_stored_last_alone(
    worlds: tuple[World, World, list[Row]],
) -> None:
    _, after, _ = worlds
    assert after.totals() == {"long": (12, 0)}
    assert [(row["version"], row["label"]) for row in after.shown()] == [("2", "pass")] * 12
    assert after.store.traces(*ALL, 100, flag="long") == []
    assert {flag for row in after.store.traces(*ALL, 100) for flag in row["flags"]} == set()
    assert {flag for row in after.store.sessions(*ALL) for flag in row["flags"]} == set()


def test_totals_of_some_spans_are_of_that_version_as_well(
    worlds: tuple[World, World, list[Row]],
) -> None:
    _, after, _ = worlds
    (row,) = after.store.overview(*ALL, session_id="s-1")["scores"]
    assert (row["n"], row["n_fail"]) == (3, 0)
    assert set(row) == {"name", "target", "n", "mean", "fail_ratio", "n_fail"}


def test_scoring_again_stores_nothing_twice(worlds: tuple[World, World, list[Row]]) -> None:
    _, after, _ = worlds
    said = after.rescore()
    assert sum(row["n_scores"] for row in said) == 0
    assert after.store.sizes()["scores"] == 24


def test_monitors_and_metrics_hear_nothing_of_it(worlds: tuple[World, World, list[Row]]) -> None:
    _, after, _ = worlds
    counted = {spec.name for spec, _ in after.metrics.snapshot()}
    assert "llmobs_evaluation_results_total" not in counted


def test_a_restart_leaves_what_was_scored_again(
    worlds: tuple[World, World, list[Row]],
) -> None:
    _, after, _ = worlds
    after.analysis._resume()  # drops the scores of what was not committed
    assert after.store.sizes()["scores"] == 24


def test_a_name_that_is_no_scorers_is_said(worlds: tuple[World, World, list[Row]]) -> None:
    _, after, _ = worlds
    with pytest.raises(ConfigurationError, match=r"'short'.*there are long"):
        after.rescore("short")


def test_a_window_is_read_piece_by_piece_and_each_span_once(
    worlds: tuple[World, World, list[Row]],
) -> None:
    store = worlds[1].store
    found: list[str] = []
    after, left = NOTHING, []
    while True:
        spans, after, n_left = store.history(*ALL, after, {0: N_SEGMENTS - 1}, 1)
        if after == NOTHING:
            break
        found += spans.ids("span_id")
        left.append(n_left)
    assert len(found) == len(set(found)) == 12
    assert left == [8, 4, 0]
    spans, _, n_left = store.history(*ALL, NOTHING, {0: 0}, 100)
    assert (len(spans), n_left) == (4, 0)  # what is not scored yet is left to the analysis
    assert len(store.history(0, 1, NOTHING, {0: 2}, 100)[0]) == 0
