"""The monitors on simulated traffic: quiet on the null, quick on incidents, exact on restart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest

from llmobs.analyzer.monitor import Monitors, MonitorSettings
from llmobs.analyzer.monitor.catalog import N_MONITORS
from llmobs.analyzer.monitor.monitors import OTHER
from llmobs.errors import ConfigurationError
from llmobs.measures.drift import pack, unpack
from llmobs.records import Finding, Scores, SpanBatch
from tests.analyzer.monitor.traffic import START_NS, Incident, Traffic, spans_of

# Time is compressed: ten sessions a second and feature, three quarters of a minute to learn.
FAST = MonitorSettings(
    reference_s=45.0, min_reference_units=200, session_idle_s=3.0, cooldown_s=20.0
)
INCIDENT_S = 60.0
EMPTY = (spans_of(ts_ns=np.zeros(0, np.int64)), Scores((), {}))


def run(monitors: Monitors, batches: Iterable[tuple[SpanBatch, Scores, int]]) -> list[Finding]:
    """Return all findings of some batches."""
    return [
        finding
        for spans, scores, now_ns in batches
        for finding in monitors.observe(spans, scores, now_ns=now_ns)
    ]


def seconds(finding: Finding) -> float:
    return (finding.at_ns - START_NS) / 1e9


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_found_where_nothing_changes(seed: int) -> None:
    calls = 8.0 if seed % 2 else 2.0  # long sessions, whose calls resemble each other, and short
    traffic = Traffic(seed=100 + seed, duration_s=100.0, mean_calls=calls, call_gap_s=0.4)
    assert run(Monitors(FAST), traffic.batches()) == []


@pytest.mark.parametrize(
    ("kind", "size", "monitors", "within_s"),
    [
        ("topic", 0.3, "input.topic", 20.0),
        ("topic", 0.5, "input.topic", 10.0),
        ("language", 0.3, "input.language", 10.0),
        ("cost", 3.0, "input.length output.length session.cost", 12.0),
        ("model", 1.0, "output.embedding output.length", 15.0),
        ("toxicity", 0.1, "output.toxicity", 12.0),
        ("refusal", 0.15, "output.refusal", 12.0),
        ("relevance", 0.2, "output.relevance", 15.0),
        ("injection", 0.15, "input.injection", 10.0),
        ("pii", 0.15, "input.pii", 12.0),
        ("errors", 0.2, "calls.errors", 8.0),
        ("latency", 1.5, "calls.latency", 15.0),
    ],
)
def test_each_default_monitor_finds_its_incident_soon_and_names_the_place(
    kind: str, size: float, monitors: str, within_s: float
) -> None:
    incident = Incident(kind, INCIDENT_S, size)
    sessions_a_s = {"assistant": 10.0, "support": 10.0}
    traffic = Traffic(seed=3, duration_s=80.0, incidents=(incident,), sessions_a_s=sessions_a_s)
    findings = run(Monitors(FAST), traffic.batches())
    assert min(map(seconds, findings)) >= INCIDENT_S
    assert {finding.feature for finding in findings} == {"assistant"}
    ids = {row.tobytes().hex() for row in traffic.columns["trace"]}
    for monitor in monitors.split():
        [mine] = [finding for finding in findings if finding.monitor == monitor]
        assert seconds(mine) <= INCIDENT_S + within_s
        assert abs(mine.onset_ns - START_NS - INCIDENT_S * 1e9) < 6e9
        assert mine.log_e >= mine.log_threshold
        assert mine.provisional
        assert mine.summary.startswith("feature assistant: ")
        assert "since 08:0" in mine.summary
        assert 1 <= len(mine.examples) <= 5
        assert set(mine.examples) <= ids
        assert mine.to_json()["evidence"]


@pytest.mark.parametrize(("size", "level"), [(1.5, "page"), (-0.8, "watch")])
def test_a_move_to_the_better_wakes_nobody(size: float, level: str) -> None:
    incident = Incident("latency", INCIDENT_S, size)
    traffic = Traffic(seed=3, duration_s=80.0, incidents=(incident,))
    findings = run(Monitors(FAST), traffic.batches())
    assert {f.level for f in findings if f.monitor == "calls.latency"} == {level}


def test_a_change_of_topics_is_not_called_a_change_of_the_model() -> None:
    for seed in range(3):
        traffic = Traffic(
            seed=seed,
            duration_s=90.0,
            incidents=(Incident("topic", INCIDENT_S, 0.4),),
            sessions_a_s={"assistant": 10.0},
        )
        kinds = {finding.kind for finding in run(Monitors(FAST), traffic.batches())}
        assert "input" in kinds
        assert "model" not in kinds


def test_a_new_topic_is_named_by_its_words_with_shares_and_examples_that_carry_it() -> None:
    traffic = Traffic(
        seed=1,
        duration_s=75.0,
        incidents=(Incident("topic", INCIDENT_S, 0.5),),
        sessions_a_s={"assistant": 10.0},
    )
    [finding] = [f for f in run(Monitors(FAST), traffic.batches()) if f.monitor == "input.topic"]
    mover = finding.evidence["movers"][0]
    assert {"visa", "passport", "engine", "tyres"} & set(
        finding.summary.split("«")[1].split("»")[0].split(", ")
    )
    low, high = mover["current_interval"]
    assert low <= mover["current"] <= high
    assert mover["reference"] < 0.1 < mover["current"]
    topic_of = {
        trace.tobytes().hex(): topic
        for trace, topic in zip(traffic.columns["trace"], traffic.columns["topic"], strict=True)
    }
    assert all(topic_of[trace] >= 10 for trace in finding.examples)


def test_a_restart_in_the_middle_changes_neither_findings_nor_state() -> None:
    incidents = (Incident("toxicity", INCIDENT_S, 0.3), Incident("topic", INCIDENT_S, 0.5))
    traffic = Traffic(
        seed=5, duration_s=75.0, incidents=incidents, sessions_a_s={"assistant": 8.0, "b": 4.0}
    )
    batches = list(traffic.batches())
    whole, restarted = Monitors(FAST), Monitors(FAST)
    expected = run(whole, batches)
    found: list[Finding] = []
    for i, batch in enumerate(batches):
        if i % 13 == 0:  # while learning, between pins, and in the middle of the incident
            restarted = Monitors.from_state(restarted.to_state(), FAST)
        found += run(restarted, [batch])
    assert found == expected
    assert {finding.monitor for finding in found} >= {"output.toxicity", "input.topic"}
    assert restarted.to_state() == whole.to_state()
    now_ns = batches[-1][2]
    assert restarted.statuses(now_ns) == whole.statuses(now_ns)


def test_an_alarm_is_told_once_and_ends_when_the_change_has_passed() -> None:
    traffic = Traffic(
        seed=2,
        duration_s=160.0,
        incidents=(Incident("errors", 60.0, 0.3), Incident("errors", 100.0, 0.0)),
        sessions_a_s={"assistant": 8.0},
    )
    monitors = Monitors(FAST)
    states = []
    findings = []
    for spans, scores, now_ns in traffic.batches():
        findings += monitors.observe(spans, scores, now_ns=now_ns)
        states += [s.state for s in monitors.statuses(now_ns) if s.monitor == "calls.errors"]
    assert [finding.monitor for finding in findings] == ["calls.errors"]
    changes = [states[0]] + [b for a, b in pairwise(states) if a != b]
    assert changes == ["learning", "watching", "alarm", "watching"]


def test_a_change_that_lasts_is_told_once_however_short_the_cool_down() -> None:
    traffic = Traffic(
        seed=2,
        duration_s=150.0,
        incidents=(Incident("errors", 60.0, 0.05),),
        sessions_a_s={"assistant": 8.0},
    )
    settings = MonitorSettings(
        reference_s=45.0, min_reference_units=200, session_idle_s=3.0, cooldown_s=1.0
    )
    findings = run(Monitors(settings), traffic.batches())
    assert [finding.monitor for finding in findings] == ["calls.errors"]


def test_sessions_end_without_further_traffic() -> None:
    traffic = Traffic(seed=0, duration_s=15.0, sessions_a_s={"assistant": 10.0}, call_gap_s=0.2)
    monitors = Monitors(FAST)
    run(monitors, traffic.batches())

    def n_learned() -> int:
        [status] = [s for s in monitors.statuses(START_NS) if s.monitor == "input.length"]
        return status.n_reference

    before = n_learned()
    monitors.observe(*EMPTY, now_ns=START_NS + int(16e9))
    monitors.observe(*EMPTY, now_ns=START_NS + int(30e9))
    came = traffic.columns["end_s"] <= 15.0
    assert n_learned() == len(np.unique(traffic.columns["session"][came])) > before


def test_an_empty_batch_is_fine_at_any_time() -> None:
    monitors = Monitors(FAST)
    assert monitors.observe(*EMPTY, now_ns=START_NS) == []
    assert monitors.statuses(START_NS) == []
    assert Monitors.from_state(monitors.to_state(), FAST).to_state() == monitors.to_state()


def test_a_span_from_the_future_closes_no_session() -> None:
    traffic = Traffic(seed=0, duration_s=10.0, sessions_a_s={"assistant": 10.0})
    monitors = Monitors(FAST)
    batches = list(traffic.batches(every_s=1.0))
    run(monitors, batches[:2])
    stray = spans_of(
        ts_ns=np.array([START_NS + 10**15]),
        operation=["chat"],
        feature=["assistant"],
        service=["shop"],
    )
    monitors.observe(stray, Scores((), {}), now_ns=batches[1][2])
    [status] = [s for s in monitors.statuses(START_NS) if s.monitor == "calls.latency"]
    assert status.n_reference == 0


def test_a_feature_that_appears_late_learns_first() -> None:
    traffic = Traffic(
        seed=4,
        duration_s=130.0,
        starts_s={"late": 60.0},
        incidents=(Incident("errors", 115.0, 0.4, feature="late"),),
        sessions_a_s={"assistant": 8.0, "late": 8.0},
    )
    monitors = Monitors(FAST)
    early = run(monitors, ((s, c, n) for s, c, n in traffic.batches() if n < START_NS + 75 * 10**9))
    late = [s for s in monitors.statuses(START_NS + 75 * 10**9) if s.feature == "late"]
    assert {status.state for status in late} == {"learning"}
    assert any(status.words.startswith("learning, ") for status in late)
    rest = run(monitors, traffic.batches(since_s=75.0))
    assert early == []
    assert {(f.feature, f.monitor) for f in rest} == {("late", "calls.errors")}


@pytest.mark.parametrize("id_kind", ["user", "trace"])
def test_without_session_ids_users_or_traces_are_the_units(id_kind: str) -> None:
    traffic = Traffic(seed=0, duration_s=15.0, sessions_a_s={"assistant": 10.0}, call_gap_s=0.2)
    traffic.id_kind = id_kind  # type: ignore[assignment]
    monitors = Monitors(FAST)
    run(monitors, traffic.batches())
    monitors.observe(*EMPTY, now_ns=START_NS + int(60e9))
    [status] = [s for s in monitors.statuses(START_NS) if s.monitor == "calls.latency"]
    what = "session" if id_kind == "user" else "trace"
    came = traffic.columns["end_s"] <= 15.0
    n_units = len(np.unique(traffic.columns[what][came], axis=0))
    assert n_units - 5 <= status.n_reference <= n_units  # a failed call has no latency


def test_scores_that_say_nothing_or_are_absent_leave_their_monitors_waiting() -> None:
    traffic = Traffic(seed=0, duration_s=70.0, sessions_a_s={"assistant": 10.0})
    monitors = Monitors(FAST)
    findings = []
    for spans, scores, now_ns in traffic.batches():
        kept = tuple(c for c in scores.columns if c.name == "relevance")
        for column in kept:
            column.values[:] = np.nan
        nothing = {name: np.full_like(e, np.nan) for name, e in scores.embeddings.items()}
        findings += monitors.observe(spans, Scores(kept, nothing), now_ns=now_ns)
    states = {status.monitor: status for status in monitors.statuses(now_ns)}
    assert findings == []
    for name in ("output.relevance", "output.toxicity", "input.language"):
        assert states[name].words == "waiting: nothing of this kind has come yet"
    for name in ("input.length", "output.length", "calls.errors"):
        assert states[name].state == "watching"
    assert states["input.topic"].state == states["output.embedding"].state == "learning"


def test_two_columns_of_one_name_are_told_apart_by_their_target() -> None:
    traffic = Traffic(
        seed=0,
        duration_s=80.0,
        incidents=(Incident("toxicity", INCIDENT_S, 0.5),),
        sessions_a_s={"assistant": 10.0},
    )

    def swapped(scores: Scores) -> Scores:
        columns = []
        for column in scores.columns:
            target = "input" if column.name == "toxicity" else column.target
            columns.append(type(column)(column.name, "1", target, column.values, column.labels, []))
        return Scores(tuple(columns), scores.embeddings)

    toxic_input = ((s, swapped(c), n) for s, c, n in traffic.batches())
    assert run(Monitors(FAST), toxic_input) == []


def test_a_model_that_answers_as_another_version_is_an_event_at_once() -> None:
    traffic = Traffic(seed=0, duration_s=20.0, sessions_a_s={"assistant": 10.0})
    monitors = Monitors(FAST)
    findings = []
    for spans, scores, now_ns in traffic.batches():
        if now_ns > START_NS + 15e9:
            index = spans.table.schema.get_field_index("response_model")
            names = [["small-2026-09"] * len(spans)]
            table = spans.table.set_column(index, spans.table.schema[index], names)
            findings += monitors.observe(SpanBatch(table), scores, now_ns=now_ns)
        else:
            findings += monitors.observe(spans, scores, now_ns=now_ns)
    [event] = findings
    assert (event.monitor, event.level) == ("model.version", "watch")
    assert event.evidence["response_model"] == "small-2026-09"
    assert "small-2026-01" in event.summary


def test_places_are_bounded_and_the_rest_is_watched_together() -> None:
    settings = MonitorSettings(max_places=3)
    monitors = Monitors(settings)
    n = 20
    spans = spans_of(
        ts_ns=START_NS + np.arange(n),
        operation=["chat"] * n,
        feature=[f"feature-{i}" for i in range(n)],
    )
    monitors.observe(spans, Scores((), {}), now_ns=START_NS + 100)
    statuses = monitors.statuses(START_NS)
    assert len({s.feature for s in statuses}) == 4
    assert OTHER[2] in {s.feature for s in statuses}
    assert len(statuses) == 4 * N_MONITORS


def test_a_place_that_fell_silent_for_long_makes_room() -> None:
    monitors = Monitors(MonitorSettings(max_places=1, forget_place_s=10.0))
    for i, name in enumerate(["old", "new"]):
        at_ns = START_NS + i * 60 * 10**9
        spans = spans_of(ts_ns=np.array([at_ns]), operation=["chat"], feature=[name])
        monitors.observe(spans, Scores((), {}), now_ns=at_ns)
    assert {s.feature for s in monitors.statuses(START_NS)} == {"new"}


def test_the_state_of_a_monitor_stays_small_however_long_it_runs() -> None:
    traffic = Traffic(seed=0, duration_s=90.0, sessions_a_s={"assistant": 20.0})
    settings = MonitorSettings(
        reference_s=3600.0, min_reference_units=200, session_idle_s=3.0, max_open_sessions=256
    )
    monitors = Monitors(settings)
    run(monitors, traffic.batches(every_s=2.0))
    assert len(monitors.to_state()) / N_MONITORS < 250_000
    assert all(len(s.history) <= 200 for s in monitors.statuses(START_NS))


def test_a_renewed_place_learns_anew() -> None:
    traffic = Traffic(seed=0, duration_s=60.0, sessions_a_s={"assistant": 10.0})
    monitors = Monitors(FAST)
    run(monitors, traffic.batches())
    assert monitors.renew("shop", "", "assistant")
    assert not monitors.renew("shop", "", "assistant")
    assert monitors.statuses(START_NS) == []


def test_spans_that_ask_no_model_are_no_calls() -> None:
    spans = spans_of(ts_ns=np.array([START_NS]), operation=["execute_tool"])
    monitors = Monitors(FAST)
    monitors.observe(spans, Scores((), {}), now_ns=START_NS)
    assert monitors.statuses(START_NS) == []


@pytest.fixture(scope="module")
def learned() -> bytes:
    """Return the state of monitors that watch."""
    monitors = Monitors(FAST)
    traffic = Traffic(seed=0, duration_s=50.0, sessions_a_s={"assistant": 10.0})
    run(monitors, traffic.batches())
    return monitors.to_state()


@pytest.mark.parametrize("state", [b"", b"garbage", Monitors().to_state()[:-3], pack({})])
def test_a_state_that_cannot_be_read_says_so(state: bytes) -> None:
    with pytest.raises(ConfigurationError, match="state"):
        Monitors.from_state(state)


def test_whatever_is_missing_in_a_state_it_is_refused(learned: bytes) -> None:
    tree = unpack(learned)
    [place] = tree["places"]
    monitors = place["monitors"]
    holders = [tree, place, place["sessions"], monitors, *monitors.values()]
    holders += [monitor["recent"] for monitor in monitors.values()]
    for holder in holders:
        for key in list(holder):
            kept = holder.pop(key)
            with pytest.raises(ConfigurationError, match="state"):
                Monitors.from_state(pack(tree), FAST)
            holder[key] = kept
    assert Monitors.from_state(pack(tree), FAST).statuses(START_NS)


def test_a_state_whose_parts_have_another_shape_is_refused(learned: bytes) -> None:
    values: list[Any] = [None, 3, "x", [], {}]
    for value in values:
        tree = unpack(learned)
        tree["places"][0]["sessions"] = value
        with pytest.raises(ConfigurationError, match="state"):
            Monitors.from_state(pack(tree), FAST)


def layout(tree: Any, path: str = "") -> Iterator[str]:
    """Yield the place, type and fixed dimensions of everything in a state."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from layout(value, f"{path}/{key}")
    elif isinstance(tree, np.ndarray):
        # How many topics there are depends on the data, all else on the code.
        fixed = tree.shape if "/evidence" in path and "topic" not in path else tree.shape[1:]
        fixed = () if "context" in path or "sample" in path or "topic" in path else fixed
        yield f"{path} {tree.dtype.str} {tree.ndim} {fixed}"
    else:
        yield f"{path} {type(tree).__name__}"


def test_a_state_of_another_layout_has_another_version(learned: bytes) -> None:
    tree = unpack(learned)
    found = hashlib.sha256("\n".join(layout(tree["places"][0])).encode()).hexdigest()[:8]
    # Where this fails: raise `_VERSION` in monitors.py, and write both down here.
    assert (tree["version"], found) == (2, "73b748cf")


# What may not page: each is a day, a weekend or a mishap, and nothing has changed.

DAY_NS = 86_400 * 10**9
CALM = Traffic(seed=11, duration_s=110.0, sessions_a_s={"assistant": 10.0})
Batches = list[tuple[SpanBatch, Scores, int]]


def moved_by(spans: SpanBatch, by_ns: int) -> SpanBatch:
    index = spans.table.schema.get_field_index("ts_ns")
    times = [spans.ints("ts_ns") + by_ns]
    return SpanBatch(spans.table.set_column(index, spans.table.schema[index], times))


def calm() -> Batches:
    return list(CALM.batches())


def silence_over_a_weekend() -> Batches:
    gap_ns = 62 * 3600 * 10**9
    before, after = calm()[:120], calm()[120:]
    hours = [(*EMPTY, before[-1][2] + hour * 3600 * 10**9) for hour in range(62)]
    return before + hours + [(moved_by(s, gap_ns), c, n + gap_ns) for s, c, n in after]


def a_clock_that_jumps_by_a_day() -> Batches:
    jump = [(*EMPTY, calm()[119][2] + DAY_NS)]
    return calm()[:120] + jump + calm()[120:]


def a_sender_that_replays_yesterday() -> Batches:
    again = [(moved_by(s, -DAY_NS), c, 0) for s, c, _ in calm()[:100]]
    out: Batches = []
    for i, (spans, scores, now_ns) in enumerate(calm()):
        out.append((spans, scores, now_ns))
        if i >= 120:
            out.append((*again[i - 120][:2], now_ns))
    return out


def an_hour_without_scores() -> Batches:
    return [(s, Scores((), {}) if 120 <= i < 160 else c, n) for i, (s, c, n) in enumerate(calm())]


def sessions_of_hundreds_of_calls() -> Batches:
    traffic = Traffic(
        seed=12,
        duration_s=90.0,
        sessions_a_s={"agent": 5.0},
        mean_calls=200.0,
        call_gap_s=0.01,
    )
    return list(traffic.batches())


def one_session_a_day() -> Batches:
    traffic = Traffic(seed=13, duration_s=60.0, sessions_a_s={"assistant": 1.0})
    out: Batches = []
    for day, (spans, scores, now_ns) in enumerate(traffic.batches(every_s=1.0)):
        out.append((moved_by(spans, day * DAY_NS), scores, now_ns + day * DAY_NS))
        out.append((*EMPTY, now_ns + day * DAY_NS + 3600 * 10**9))
    return out


@pytest.mark.parametrize(
    "what",
    [
        silence_over_a_weekend,
        a_clock_that_jumps_by_a_day,
        a_sender_that_replays_yesterday,
        an_hour_without_scores,
        sessions_of_hundreds_of_calls,
        one_session_a_day,
    ],
)
def test_what_happens_on_any_day_pages_nobody(what: Callable[[], Batches]) -> None:
    assert run(Monitors(FAST), what()) == []


def test_after_a_clock_was_set_right_sessions_are_whole_again() -> None:
    monitors = Monitors(FAST)
    run(monitors, a_clock_that_jumps_by_a_day())
    monitors.observe(*EMPTY, now_ns=START_NS + int(200e9))
    [status] = [s for s in monitors.statuses(START_NS) if s.monitor == "input.length"]
    n_sessions = len(np.unique(CALM.columns["session"]))
    assert status.n_reference + status.n_units < 1.2 * n_sessions


@pytest.mark.parametrize("mishap", ["pause", "old clock"])
def test_a_pause_or_an_old_clock_makes_no_reference_whole(mishap: str) -> None:
    settings = MonitorSettings(min_reference_units=100, session_idle_s=3.0)
    monitors = Monitors(settings)
    batches = calm()[:60]
    if mishap == "pause":
        fortnight_ns = 20 * DAY_NS
        batches += [(moved_by(s, fortnight_ns), c, n + fortnight_ns) for s, c, n in calm()[60:80]]
    else:
        spans, scores, now_ns = batches[0]
        batches[0] = (moved_by(spans, -START_NS), scores, now_ns)
    run(monitors, batches)
    statuses = [s for s in monitors.statuses(START_NS) if s.state == "watching"]
    assert len(statuses) > 5
    assert all("provisional" in status.words for status in statuses)


def test_a_session_that_sampling_thinned_costs_what_it_stands_for() -> None:
    traffic = Traffic(seed=0, duration_s=50.0, sessions_a_s={"assistant": 10.0})
    costs = []
    for weight in (1.0, 4.0):
        monitors = Monitors(FAST)
        for spans, scores, now_ns in traffic.batches():
            index = spans.table.schema.get_field_index("weight")
            weights = [np.full(len(spans), weight)]
            table = spans.table.set_column(index, spans.table.schema[index], weights)
            monitors.observe(SpanBatch(table), scores, now_ns=now_ns)
        [status] = [s for s in monitors.statuses(0) if s.monitor == "session.cost"]
        assert status.reference is not None
        costs.append(status.reference)
    assert costs[1] == pytest.approx(4.0 * costs[0])


def test_the_state_names_no_session_and_no_user_and_without_content_holds_no_text() -> None:
    traffic = Traffic(seed=0, duration_s=50.0, sessions_a_s={"assistant": 10.0})
    kinds: list[Literal["session", "user"]] = ["session", "user"]
    for id_kind in kinds:
        traffic.id_kind = id_kind
        monitors = Monitors(FAST)
        for spans, scores, now_ns in traffic.batches():
            index = spans.table.schema.get_field_index("input_text")
            table = spans.table.set_column(index, spans.table.schema[index], [[""] * len(spans)])
            monitors.observe(SpanBatch(table), scores, now_ns=now_ns)
        state = monitors.to_state()
        assert b"assistant" in state  # the feature
        assert b"assistant-" not in state  # its sessions and users
        assert b"please help" not in state


def test_texts_that_are_to_be_forgotten_stay_neither_by_themselves_nor_by_their_trace() -> None:
    incident = Incident("topic", INCIDENT_S, 0.5)
    traffic = Traffic(duration_s=INCIDENT_S + 10.0, incidents=(incident,))
    monitors = Monitors(FAST)
    run(monitors, traffic.batches())
    kept = monitors.to_state()
    assert b"help with billing invoice" in kept  # of the reference, too
    assert b"help with visa passport" in kept
    monitors.forget((), {"please help with billing invoice"})
    assert b"billing invoice" not in monitors.to_state()
    assert b"help with visa passport" in monitors.to_state()
    monitors.forget({row.tobytes() for row in traffic.columns["trace"]}, ())
    assert b"visa passport" not in monitors.to_state()


def test_what_is_forgotten_changes_no_verdict() -> None:
    incident = Incident("topic", INCIDENT_S, 0.5)
    batches = list(Traffic(duration_s=INCIDENT_S + 10.0, incidents=(incident,)).batches())
    plain, forgetful = Monitors(FAST), Monitors(FAST)
    found, found_again = [], []
    for batch in batches:
        found += run(plain, [batch])
        found_again += run(forgetful, [batch])
        forgetful.forget((), {"please help with billing invoice"})
    assert [finding.id for finding in found] == [finding.id for finding in found_again] != []


def test_the_evidence_of_a_finding_stays_small() -> None:
    incidents = [Incident("topic", 60.0, 0.5), Incident("language", 60.0, 0.5)]
    traffic = Traffic(
        seed=1, duration_s=80.0, incidents=tuple(incidents), sessions_a_s={"assistant": 10.0}
    )
    batches: Batches = []
    for spans, scores, now_ns in traffic.batches():
        index = spans.table.schema.get_field_index("input_text")
        long = [[text * 200 for text in spans.texts("input_text")]]
        table = spans.table.set_column(index, spans.table.schema[index], long)
        batches.append((SpanBatch(table), scores, now_ns))
    findings = run(Monitors(FAST), batches)
    assert {"input.topic", "input.language"} <= {finding.monitor for finding in findings}
    assert all(len(json.dumps(finding.to_json())) < 8_000 for finding in findings)


def test_a_finding_after_the_state_was_lost_is_another_finding() -> None:
    traffic = Traffic(
        seed=2,
        duration_s=80.0,
        incidents=(Incident("errors", 60.0, 0.5),),
        sessions_a_s={"assistant": 8.0},
    )
    [first] = run(Monitors(FAST), traffic.batches())
    later = [(moved_by(s, DAY_NS), c, n + DAY_NS) for s, c, n in traffic.batches()]
    [second] = run(Monitors(FAST), later)
    assert first.id != second.id


def test_a_place_whose_call_comes_with_that_of_a_new_one_keeps_it() -> None:
    monitors = Monitors(MonitorSettings(max_places=1, forget_place_s=10.0))
    for i, names in enumerate([["old"], ["old", "new"]]):
        at_ns = START_NS + i * 60 * 10**9
        spans = spans_of(
            ts_ns=np.full(len(names), at_ns), operation=["chat"] * len(names), feature=names
        )
        monitors.observe(spans, Scores((), {}), now_ns=at_ns)
    assert {s.feature for s in monitors.statuses(START_NS)} == {"old", OTHER[2]}


def test_features_named_by_accident_make_room_after_a_day() -> None:
    monitors = Monitors(MonitorSettings(max_places=2))
    for at_ns, names in ((START_NS, ["id-1", "id-2"]), (START_NS + 2 * DAY_NS, ["real"])):
        spans = spans_of(
            ts_ns=np.full(len(names), at_ns), operation=["chat"] * len(names), feature=names
        )
        monitors.observe(spans, Scores((), {}), now_ns=at_ns)
    assert {s.feature for s in monitors.statuses(START_NS)} == {"real"}


@pytest.mark.parametrize(
    ("name", "value"), [("reference_s", 0.0), ("cooldown_s", -1.0), ("min_reference_units", 3)]
)
def test_settings_out_of_bounds_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=name):
        MonitorSettings(**{name: value})  # type: ignore[arg-type]
