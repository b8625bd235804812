"""`llmobs rescore`, against the real page over a real store and a real scorer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from llmobs.analyzer.rescore import Rescorer
from llmobs.analyzer.score import ScoreStage, scorer
from llmobs.analyzer.store import ClickHouseStore, open_store
from llmobs.cli.commands import cli
from llmobs.records import SpanBatch
from llmobs.web.app import create_app
from tests.analyzer.store.rows import NO_EVENTS, NO_METRICS, span_id, spans, trace_id
from tests.cli.test_doctor import listening
from tests.web.fakes import FakeState, sample_page_metrics, sample_ready

TOKEN = "admin-secret"
NOW_NS = time.time_ns()
N_SEGMENTS, N_SPANS = 3, 1500


@scorer(version="7", target="output")
def words(text: str) -> float:
    return float(len(text.split()))


@scorer(version="1", target="input")
def broken(text: str) -> float:
    raise ValueError(text)


def batch(segment: int) -> SpanBatch:
    first = segment * N_SPANS + 1
    return spans(
        *(
            {
                "ts_ns": NOW_NS - 3600 * 10**9 + n,
                "trace_id": trace_id(n),
                "span_id": span_id(n),
                "operation": "chat",
                "input_text": f"question {n}",
                "output_text": "an answer",
            }
            for n in range(first, first + N_SPANS)
        )
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    opened = open_store(f"chdb://{tmp_path_factory.mktemp('data') / 'store'}")
    for segment in range(N_SEGMENTS):
        opened.append(segment, batch(segment), NO_EVENTS, NO_METRICS)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def url(store: ClickHouseStore) -> Iterator[str]:
    stage = ScoreStage([words, broken], time_box_s=60)
    app = create_app(
        store,
        FakeState(NOW_NS // 1_000_000),
        metrics=sample_page_metrics,
        ready=sample_ready,
        admin_token=TOKEN,
        rescore=Rescorer(store, stage, lambda: {0: N_SEGMENTS - 1}).step,
    )
    with listening(app) as address:
        yield address


def run(url: str, *words: str, token: str = TOKEN) -> Result:
    return CliRunner().invoke(cli, ["rescore", "--url", url, "--token", token, *words])


def test_a_window_is_scored_and_every_piece_is_told(url: str, store: ClickHouseStore) -> None:
    result = run(url, "--scorer", "words", "--json")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) > 1
    assert [line["n_left"] for line in lines] == [N_SPANS, 0]
    assert lines[-1]["n_spans"] == lines[-1]["n_scores"] == N_SEGMENTS * N_SPANS
    assert lines[-1]["versions"] == {"words": "7"}
    assert store.sizes()["scores"] == N_SEGMENTS * N_SPANS
    again = run(url, "--scorer", "words")
    assert "4,500 spans read, 0 scores stored (words 7)" in again.stderr


def test_a_scorer_that_fails_is_named_and_the_exit_code_says_so(url: str) -> None:
    result = run(url, "--scorer", "broken")
    assert result.exit_code == 1
    assert "broken failed: raised ValueError" in result.stderr


def test_a_mistake_is_told_in_a_line(url: str) -> None:
    assert "no scorer 'wrods' runs here" in run(url, "--scorer", "wrods").stderr
    assert "401" in run(url, token="guessed").stderr
