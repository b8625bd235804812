"""Some scorers may be asked again and others not, and one that fails is asked again later."""

from __future__ import annotations

from llmobs.analyzer.score import scorer
from llmobs.analyzer.store import ClickHouseStore, SqliteState
from tests.analyzer.rescoring import ALL, World, filled, of_version


def test_one_scorer_may_be_chosen_and_a_new_one_fills_the_past(
    store: ClickHouseStore, state: SqliteState
) -> None:
    filled(store)
    World(store, state, of_version("1", 1)).analyze()

    @scorer(version="1", target="output")
    def words(text: str) -> float:
        return float(len(text.split()))

    world = World(store, state, of_version("2", 1), words)
    world.rescore("words")
    assert world.totals() == {"long": (12, 12), "words": (12, 0)}
    assert {row["version"] for row in world.shown()} == {"1"}


def test_a_scorer_that_fails_is_named_and_done_again_when_it_is_mended(
    store: ClickHouseStore, state: SqliteState
) -> None:
    filled(store)
    is_broken = True

    @scorer(version="1", target="output")
    def words(text: str) -> float:
        if is_broken:
            raise ValueError("no dictionary")
        return float(len(text.split()))

    World(store, state, of_version("1", 1)).analyze()
    world = World(store, state, of_version("1", 1), words)
    assert world.rescore()[0]["failed"] == {"words": "raised ValueError"}
    is_broken = False
    (said,) = world.rescore()
    assert said["failed"] == {}
    assert said["n_scores"] == 12  # of the one that failed alone


def test_a_session_that_is_deleted_while_it_is_scored_leaves_no_score(
    store: ClickHouseStore, state: SqliteState
) -> None:
    filled(store)
    World(store, state, of_version("1", 1)).analyze()

    @scorer(version="1", target="output")
    def words(text: str) -> float:
        store.note_erasure("session", "s-1", 10)
        store.delete_session("s-1")
        return float(len(text.split()))

    world = World(store, state, words)
    world.rescore()
    assert world.totals() == {"long": (9, 9), "words": (9, 0)}
    assert store.overview(*ALL, session_id="s-1")["scores"] == []
