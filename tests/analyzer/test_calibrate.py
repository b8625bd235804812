"""Thresholds from stored scores, and `llmobs scorers calibrate` over the real page."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from llmobs.analyzer.calibrate import Calibrator
from llmobs.analyzer.score import Target
from llmobs.analyzer.store import ClickHouseStore, open_store
from llmobs.analyzer.store.base import Row
from llmobs.cli.commands import cli
from llmobs.errors import ConfigurationError
from llmobs.records import ScoreColumn, Scores, SpanBatch
from llmobs.settings import load_settings
from llmobs.web.app import create_app
from tests.analyzer.store.rows import NO_EVENTS, NO_METRICS, span_id, spans, trace_id
from tests.cli.test_doctor import listening
from tests.web.fakes import FakeState, sample_page_metrics, sample_ready

NOW_NS = time.time_ns()
ALL = (0, 2**62)
N = 2000
NAMES = ("toxicity", "relevance", "rude", "language", "words")


def batch(number: int, service: str) -> SpanBatch:
    first = number * N + 1
    return spans(
        *(
            {
                "ts_ns": NOW_NS - 3600 * 10**9 + n,
                "trace_id": trace_id(n),
                "span_id": span_id(n),
                "service": service,
            }
            for n in range(first, first + N)
        )
    )


def column(
    name: str, values: list[float], labels: list[str], version: str = "2", target: Target = "input"
) -> ScoreColumn:
    return ScoreColumn(name, version, target, np.array(values), labels, [""] * len(values))


def scored(languages: list[str], *columns: ScoreColumn) -> Scores:
    # A text in no language that is known has no score of it.
    known = [0.9 if language else np.nan for language in languages]
    return Scores((column("language", known, languages, "1"), *columns), {})


def fill(store: ClickHouseStore) -> None:
    even = [n / N for n in range(N)]
    passed = ["pass"] * N
    shop, search = batch(0, "shop"), batch(1, "search")
    for number, spans_of in enumerate((shop, search)):
        store.append(number, spans_of, NO_EVENTS, NO_METRICS)
    # What an earlier version said of all does not count.
    old = column("toxicity", [9.0] * N, ["fail"] * N, "1")
    store.append_scores(0, shop, Scores((old,), {}))
    time.sleep(1.1)  # the store knows the second in which a score was stored
    store.append_scores(
        0,
        shop,
        scored(
            ["en"] * 1000 + ["de"] * 900 + [""] * 100,
            column("toxicity", even, passed),
            column("relevance", even, passed, target="pair"),
            column("rude", even, ["fail" if value < 0.1 else "pass" for value in even]),
            column("words", even, [""] * N),
        ),
    )
    store.append_scores(
        1, search, scored(["en"] * N, column("toxicity", [value + 1 for value in even], passed))
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    opened = open_store(f"chdb://{tmp_path_factory.mktemp('data') / 'store'}")
    fill(opened)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def url(store: ClickHouseStore) -> Iterator[str]:
    app = create_app(
        store,
        FakeState(NOW_NS // 1_000_000),
        metrics=sample_page_metrics,
        ready=sample_ready,
        calibrate=Calibrator(store, lambda: NAMES).thresholds,
    )
    with listening(app) as address:
        yield address


def places(rows: list[Row]) -> dict[tuple[str, str, str], Row]:
    return {(row["name"], row["service"], row["language"]): row for row in rows}


def found(
    store: ClickHouseStore, share: float = 0.01, *names: str
) -> dict[tuple[str, str, str], Row]:
    return places(Calibrator(store, lambda: NAMES).thresholds(*ALL, share, names))


def test_each_service_and_language_has_a_threshold_of_its_own(store: ClickHouseStore) -> None:
    rows = found(store, 0.01, "toxicity")
    assert set(rows) == {
        ("toxicity", "search", "en"),
        ("toxicity", "shop", "en"),
        ("toxicity", "shop", "de"),
        ("toxicity", "shop", ""),
    }
    english = rows["toxicity", "shop", "en"]
    assert (english["n"], english["version"], english["fails"]) == (1000, "2", "from")
    assert english["threshold"] == pytest.approx(990 / N)
    assert (english["share"], english["share_now"]) == (0.01, 0)
    assert english["low"] < english["threshold"] < english["high"]
    assert rows["toxicity", "search", "en"]["threshold"] == pytest.approx(1 + 1980 / N)


def test_few_texts_have_no_upper_bound(store: ClickHouseStore) -> None:
    unknown = found(store)["toxicity", "shop", ""]
    assert unknown["n"] == 100
    assert unknown["threshold"] == pytest.approx(1999 / N)
    assert unknown["high"] is None


def test_low_values_fail_where_what_failed_was_low_or_the_score_is_known_for_it(
    store: ClickHouseStore,
) -> None:
    rows = found(store)
    rude = rows["rude", "shop", "en"]
    assert (rude["fails"], rude["share_now"]) == ("below", 0.2)
    assert rude["threshold"] == pytest.approx(10 / N)
    assert rows["relevance", "shop", "en"]["fails"] == "below"


def test_scores_without_a_verdict_have_no_threshold(store: ClickHouseStore) -> None:
    assert {name for name, _, _ in found(store)} == {"toxicity", "relevance", "rude"}


def test_a_name_that_is_no_scorers_is_said(store: ClickHouseStore) -> None:
    with pytest.raises(ConfigurationError, match="no scorer 'toxcity' runs here"):
        found(store, 0.01, "toxcity")


def run(url: str, *words: str) -> Result:
    return CliRunner().invoke(cli, ["scorers", "calibrate", "--url", url, *words])


def test_what_it_writes_as_toml_are_settings(url: str, tmp_path: Path) -> None:
    path = tmp_path / "llmobs.toml"
    path.write_text(run(url, "--since", "1d", "--toml").stdout)
    rules = load_settings(path).thresholds
    assert len(rules) == 10
    (english,) = [
        rule
        for rule in rules
        if (rule.score, rule.service, rule.language) == ("toxicity", "shop", "en")
    ]
    assert (english.target, english.fail_from, english.fail_below) == ("input", 0.495, None)


def test_the_command_asks_the_server(url: str) -> None:
    result = run(url, "--since", "1d", "--fpr", "0.05", "--scorer", "toxicity", "--json")
    assert result.exit_code == 0, result.output
    rows = places([json.loads(line) for line in result.stdout.splitlines()])
    assert rows["toxicity", "shop", "de"]["share"] == 0.05
    assert "≥ 0.9" in run(url).stdout
    assert "no scorer 'x'" in run(url, "--scorer", "x").stderr
    assert run(url, "--fpr", "1").exit_code == 2
