from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from llmobs.analyzer.store.base import Row
from llmobs.errors import ConfigurationError, LlmobsError, StoreError
from llmobs.web.app import create_app
from llmobs.web.health import health
from tests.web.fakes import (
    MARKUP,
    FakeState,
    FakeStore,
    sample_page_metrics,
    sample_ready,
)

NOW_MS = 1_780_000_000_000
API = "/api/v1"


@pytest.fixture(scope="module")
def store() -> FakeStore:
    return FakeStore(NOW_MS, sessions=300)


@pytest.fixture(scope="module")
def client(store: FakeStore) -> Iterator[TestClient]:
    with client_of(store) as client:
        yield client


def client_of(store: FakeStore, **options: Any) -> TestClient:
    app = create_app(
        store,
        FakeState(NOW_MS, store),
        metrics=sample_page_metrics,
        ready=options.pop("ready", sample_ready),
        clock_ns=lambda: NOW_MS * 1_000_000,
        **options,
    )
    return TestClient(app, raise_server_exceptions=False)


def read(client: TestClient, path: str, **params: Any) -> Any:
    response = client.get(f"{API}/{path}", params=params)
    assert response.status_code == 200, response.text
    return response.json()


# The API, address by address.


def test_overview_holds_the_window_and_the_one_before(client: TestClient, store: FakeStore) -> None:
    answer = read(client, "overview", since="24h")
    assert answer["window"] == {"since_ms": NOW_MS - 86_400_000, "until_ms": NOW_MS}
    day_ns = 86_400_000_000_000
    now_ns = NOW_MS * 1_000_000
    before = store.overview(now_ns - 2 * day_ns, now_ns - day_ns)
    assert answer["previous"]["calls"] == before["calls"] > 0
    assert answer["current"]["calls"] != answer["previous"]["calls"]
    assert {row["name"] for row in answer["current"]["by_model"]} >= {"gpt-5", "gpt-5-mini"}


def n_calls(path: str, answer: Any) -> int:
    """Return what an answer counts: calls, or scored calls."""
    rows = [answer["current"]] if path == "overview" else answer["rows"]
    return sum(row["n" if path == "scores" else "calls"] for row in rows)


CONTENT = {"sessions": "sessions", "traces": "traces"}


@pytest.mark.parametrize("path", ["overview", "series", "sessions", "traces", "scores"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service", "docs-agent"),
        ("feature", "code-review"),
        ("model", "gpt-5"),
        ("environment", "staging"),
    ],
)
def test_every_list_is_narrowed_by_every_filter(
    client: TestClient, path: str, name: str, value: str
) -> None:
    whole = client.get(f"{API}/{path}", params={"since": "24h"}).json()
    narrowed = client.get(f"{API}/{path}", params={"since": "24h", name: value}).json()
    if path in CONTENT:  # cut at a limit: rows are told apart by the filter itself
        key = {"model": "models", "feature": "features"}.get(name, name)
        seen = [row[key] for row in narrowed[CONTENT[path]] if key in row]
        assert all(value == one or value in one for one in seen)
        assert narrowed != whole
    else:
        assert 0 < n_calls(path, narrowed) < n_calls(path, whole)


def test_series_begins_at_a_whole_step_and_has_about_a_hundred_rows(client: TestClient) -> None:
    answer = read(client, "series", since="24h")
    assert answer["step_s"] == 900
    assert 90 <= len(answer["rows"]) <= 120
    assert all(row["ts_ms"] % 900_000 == 0 for row in answer["rows"])
    assert answer["rows"][0]["ts_ms"] <= answer["window"]["since_ms"]


def test_sessions_come_in_the_order_asked_for(client: TestClient) -> None:
    costs = [row["cost_usd"] or 0 for row in read(client, "sessions", order="cost")["sessions"]]
    assert costs == sorted(costs, reverse=True)
    lasts = [row["last_ms"] for row in read(client, "sessions")["sessions"]]
    assert lasts == sorted(lasts, reverse=True)


def test_sessions_are_found_by_a_part_of_their_id_or_user(client: TestClient) -> None:
    row = read(client, "sessions", since="7d")["sessions"][-1]
    found = read(client, "sessions", since="7d", q=row["session_id"][-6:].upper())["sessions"]
    assert row["session_id"] in [one["session_id"] for one in found]
    assert all(
        one["user_id"] == row["user_id"]
        for one in read(client, "sessions", since="7d", q=row["user_id"])["sessions"]
    )


def test_a_session_brings_its_traces_and_a_trace_its_spans(client: TestClient) -> None:
    row = read(client, "sessions", since="7d")["sessions"][0]
    session = read(client, f"sessions/{row['session_id']}")
    assert len(session["traces"]) == row["traces"]
    trace = read(client, f"traces/{session['traces'][0]['trace_id']}")
    assert trace["n_spans"] == len(trace["spans"]) == session["traces"][0]["spans"]
    assert {"input_messages", "attributes", "scores", "events", "parent_id"} <= set(
        trace["spans"][0]
    )


def test_a_session_id_may_hold_a_slash(store: FakeStore) -> None:
    odd = FakeStore(NOW_MS, sessions=20)
    odd.spans = [{**span, "session_id": "tenant/7"} for span in odd.spans]
    assert read(client_of(odd), "sessions/tenant%2F7")["session_id"] == "tenant/7"


def test_traces_are_found_by_text_error_and_failed_score(client: TestClient) -> None:
    texts = read(client, "traces", since="7d", q="BROKEN POLE")["traces"]
    assert texts
    assert all("broken pole" in row["input"] for row in texts)
    failed = read(client, "traces", since="7d", error="1")["traces"]
    assert failed
    assert all(row["errors"] for row in failed)
    flagged = read(client, "traces", since="7d", flag="injection")["traces"]
    assert flagged
    assert all("injection" in row["flags"] for row in flagged)


def test_cost_is_grouped_by_any_of_its_keys(client: TestClient) -> None:
    answer = read(client, "cost", since="7d", by="user_id", limit=3)
    assert answer["by"] == "user_id"
    assert len(answer["rows"]) == 3
    assert {"key", "calls", "cost_usd", "unpriced_calls"} <= set(answer["rows"][0])


def test_dimensions_name_what_filters_can_take(client: TestClient) -> None:
    answer = read(client, "dimensions", since="7d")
    assert set(answer) == {"service", "environment", "feature", "model"}
    assert answer["environment"] == ["production", "staging"]


def test_scores_stand_beside_those_of_the_window_before(client: TestClient) -> None:
    rows = read(client, "scores", since="24h")["rows"]
    assert {"toxicity", "refusal"} <= {row["name"] for row in rows}
    assert all(row["previous"]["n"] > 0 for row in rows)


def test_monitors_findings_and_alerts_are_narrowed_by_place(client: TestClient) -> None:
    assert read(client, "monitors", state="alarm")["monitors"]
    assert {
        row["service"] for row in read(client, "monitors", service="docs-agent")["monitors"]
    } == {"docs-agent"}
    assert len(read(client, "findings", since="7d")["findings"]) == 3
    assert len(read(client, "findings", since="7d", level="watch")["findings"]) == 1
    assert len(read(client, "alerts")["alerts"]) == 3
    assert len(read(client, "alerts", state="resolved")["alerts"]) == 1
    assert not read(client, "alerts", state="firing", feature="nothing")["alerts"]


def test_monitors_come_without_their_course_on_request(client: TestClient) -> None:
    assert any(row["history"] for row in read(client, "monitors")["monitors"])
    assert not any(row["history"] for row in read(client, "monitors", history="0")["monitors"])


def test_a_finding_comes_with_its_evidence(client: TestClient) -> None:
    finding = read(client, "findings/f-3a91c0")
    assert finding["evidence"]["movers"][0]["name"] == "in «es»"


def test_metrics_are_a_series_of_a_stored_otlp_metric(client: TestClient) -> None:
    answer = read(client, "metrics", name="process.memory.usage", since="1h")
    assert len({row["service"] for row in answer["rows"]}) == 3
    assert {"ts_ms", "service", "labels", "value"} == set(answer["rows"][0])


def test_status_tells_readiness_and_sizes(client: TestClient, store: FakeStore) -> None:
    answer = read(client, "status")
    assert answer["ready"] is True
    assert answer["sizes"]["spans"] == len(store.spans)


def test_status_tells_what_the_metrics_say_of_the_servers_health(client: TestClient) -> None:
    health = read(client, "status")["health"]
    assert health["requests"] == {"accepted": 110}
    assert health["items"] == {"accepted": 12_783, "duplicate": 64}
    assert health["log"]["size_bytes"] == 2_500_000
    assert health["lag_s"] == 0.65
    assert set(health["heartbeat_age_s"]) == {"ingest", "analysis", "announcer"}
    assert health["publish_failures"] == {}
    assert health["completeness"] == {"shop-api": 0.99975}
    assert health["missing"] == {"shop-api": 3}


def test_health_of_a_server_that_says_nothing_is_not_known_rather_than_zero() -> None:
    quiet = health(b"", 0.0)
    assert quiet["log"] == {}
    assert quiet["lag_s"] is None
    assert quiet["heartbeat_age_s"] == {}


# Parameters.


@pytest.mark.parametrize(
    ("path", "params", "hint"),
    [
        ("overview", {"since": "yesterday"}, "15m"),
        ("overview", {"until": "2026-13-01"}, "ISO 8601"),
        ("overview", {"since": "1780000000001"}, "15m"),  # after until
        ("overview", {"since": "9999d"}, "days"),
        ("overview", {"sinc": "1h"}, "environment, feature, model"),
        ("overview", {"service": "x" * 300}, "256"),
        ("series", {"step": "5"}, "from 60"),
        ("sessions", {"order": "name"}, "calls, cost"),
        ("traces", {"limit": "many"}, "1000"),
        ("traces", {"limit": "0"}, "1000"),
        ("traces", {"limit": "²"}, "1000"),
        ("traces", {"error": "yes"}, "0, 1"),
        ("cost", {"by": "mood"}, "session_id"),
        ("alerts", {"state": "open"}, "firing"),
        ("status", {"since": "1h"}, "nothing"),
        ("sessions/abc", {"since": "1h"}, "nothing"),
    ],
)
def test_a_bad_parameter_is_refused_with_a_hint(
    client: TestClient, path: str, params: dict[str, str], hint: str
) -> None:
    response = client.get(f"{API}/{path}", params=params)
    assert response.status_code == 400
    assert set(response.json()) == {"error", "hint"}
    assert hint in response.json()["hint"]


@pytest.mark.parametrize(
    ("since", "begin_ms"),
    [
        ("15m", NOW_MS - 900_000),
        ("2w", NOW_MS - 14 * 86_400_000),
        ("2026-05-28T20:00:00Z", 1_779_998_400_000),
        ("2026-05-28T22:00:00+02:00", 1_779_998_400_000),
        ("2026-05-28T20:00:00", 1_779_998_400_000),
        ("1779998400000", 1_779_998_400_000),
    ],
)
def test_since_is_a_duration_a_date_or_milliseconds(
    client: TestClient, since: str, begin_ms: int
) -> None:
    assert read(client, "overview", since=since)["window"]["since_ms"] == begin_ms


def test_a_limit_is_cut_to_a_thousand(client: TestClient) -> None:
    assert len(read(client, "traces", since="7d", limit=10**9)["traces"]) <= 1000


@pytest.mark.parametrize(
    "path", ["sessions/none", "traces/none", f"traces/{'0' * 32}", "findings/none", "nowhere"]
)
def test_what_does_not_exist_is_a_404_in_json(client: TestClient, path: str) -> None:
    response = client.get(f"{API}/{path}")
    assert response.status_code == 404
    assert set(response.json()) == {"error", "hint"}


def test_numbers_that_json_has_no_word_for_become_null() -> None:
    empty = FakeStore(NOW_MS, sessions=0)
    assert math.isnan(empty.overview(0, 1)["error_ratio"])
    answer = client_of(empty).get(f"{API}/overview")
    assert "NaN" not in answer.text
    assert answer.json()["current"]["error_ratio"] is None


def test_infinite_evidence_becomes_null(client: TestClient) -> None:
    learning = read(client, "monitors", state="learning")["monitors"]
    assert learning
    assert all(row["log_e"] is None for row in learning)


def test_an_answer_may_not_be_kept_by_a_cache(client: TestClient) -> None:
    assert client.get(f"{API}/traces").headers["cache-control"] == "no-store"


# Failures.


class FailingStore(FakeStore):
    def __init__(self, error: Exception) -> None:
        super().__init__(NOW_MS, sessions=0)
        self.error = error

    def sizes(self) -> Row:
        raise self.error


def test_a_store_that_fails_is_a_503_without_its_inner_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        response = client_of(FailingStore(StoreError("secret path"))).get(f"{API}/status")
    assert response.status_code == 503
    assert "secret" not in response.text
    assert "store failed a query" in caplog.text


def test_an_unexpected_error_is_a_500_in_json_with_the_headers() -> None:
    response = client_of(FailingStore(RuntimeError("secret"))).get(f"{API}/status")
    assert response.status_code == 500
    assert set(response.json()) == {"error", "hint"}
    assert "secret" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


# Probes and metrics.


def test_probes_tell_whether_it_lives_and_whether_it_works(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"ok": True}
    assert client.get("/readyz").status_code == 200
    waiting = client_of(
        FakeStore(NOW_MS, sessions=0), ready=lambda: (False, {"ingest": "starting"})
    )
    response = waiting.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "ingest": "starting"}


def test_metrics_are_in_prometheus_text_format(client: TestClient) -> None:
    response = client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"llmobs_calls_total 12" in response.content


# The token.


@pytest.fixture
def guarded(store: FakeStore) -> TestClient:
    return client_of(store, token="correct horse")


@pytest.mark.parametrize("path", [f"{API}/overview", f"{API}/traces/{'0' * 32}", "/metrics"])
def test_without_the_token_there_is_no_data(guarded: TestClient, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "llmobs_session=wrong"}):
        response = guarded.get(path, headers=headers)
        assert response.status_code == 401
        assert set(response.json()) == {"error", "hint"}
    assert guarded.get(path, headers={"Authorization": "Bearer correct horse"}).status_code != 401


def test_probes_and_the_empty_page_need_no_token(guarded: TestClient) -> None:
    assert guarded.get("/healthz").status_code == 200
    assert guarded.get("/readyz").status_code == 200
    assert guarded.get("/").status_code == 200


def test_a_login_sets_a_cookie_that_opens_the_api_and_does_not_hold_the_token(
    guarded: TestClient,
) -> None:
    assert guarded.post(f"{API}/login", json={"token": "wrong"}).status_code == 401
    response = guarded.post(f"{API}/login", json={"token": "correct horse"})
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "correct" not in cookie
    assert guarded.get(f"{API}/overview").status_code == 200
    guarded.post(f"{API}/logout")
    assert guarded.get(f"{API}/overview").status_code == 401


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"token": 7}', b'{"token": "\\ud800"}'])
def test_a_login_that_makes_no_sense_is_refused(guarded: TestClient, body: bytes) -> None:
    assert guarded.post(f"{API}/login", content=body).status_code == 401


def test_a_huge_login_is_not_read(guarded: TestClient) -> None:
    assert guarded.post(f"{API}/login", content=b"x" * 100_000).status_code == 413


def test_an_empty_token_is_a_mistake_not_an_open_door(store: FakeStore) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        client_of(store, token="")


# The page and its files.


def asset_paths(client: TestClient) -> list[str]:
    page = client.get("/").text
    return [part.split('"')[0] for part in page.split('"') if "/assets/" in part]


def test_the_page_names_versioned_assets_that_may_be_kept_for_ever(client: TestClient) -> None:
    paths = asset_paths(client)
    assert any(path.endswith("/app.js") for path in paths)
    for path in paths:
        response = client.get(path)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
    assert client.get("/").headers["cache-control"] == "no-cache"


def test_modules_are_served_as_javascript(client: TestClient) -> None:
    script = next(path for path in asset_paths(client) if path.endswith("/app.js"))
    assert client.get(script).headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("name", ["../app.py", "%2e%2e/app.py", "index.html", "none.js"])
def test_nothing_but_the_assets_is_served(client: TestClient, name: str) -> None:
    folder = asset_paths(client)[0].rsplit("/", 1)[0]
    assert client.get(f"{folder}/{name}").status_code == 404
    assert client.get("/assets/000000000000/app.js").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/sessions",
        "/sessions/a%2Fb",
        "/traces/abc",
        "/drift",
        "/drift/f-1",
        "/alerts",
        "/system",
    ],
)
def test_every_address_of_the_page_answers_with_the_page(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert '<main id="main"' in response.text


def test_an_unknown_address_is_the_page_with_a_404(client: TestClient) -> None:
    response = client.get("/nowhere")
    assert response.status_code == 404
    assert '<main id="main"' in response.text


@pytest.mark.parametrize("path", ["/", "/api/v1/overview", "/metrics", "/nowhere", "/api/v1/none"])
def test_every_answer_has_the_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


def test_the_page_has_no_inline_script_or_style_and_loads_nothing_from_outside(
    client: TestClient,
) -> None:
    page = client.get("/").text
    assert "<style" not in page
    assert " style=" not in page
    assert page.count("<script") == page.count("<script src=") + page.count('type="module" src=')
    assert "http://" not in page
    assert "https://" not in page


def test_no_script_of_the_page_takes_html(client: TestClient) -> None:
    from llmobs.web.assets import Assets

    for name, content in Assets("")._files.items():
        if name.endswith(".js"):
            for danger in (b"innerHTML", b"outerHTML", b"insertAdjacentHTML", b"document.write"):
                assert danger not in content, name


def test_hostile_text_reaches_the_page_as_json_text_alone(client: TestClient) -> None:
    response = client.get(f"{API}/traces", params={"since": "7d", "q": "<script>"})
    assert response.headers["content-type"] == "application/json"
    assert MARKUP in {row["input"] for row in response.json()["traces"]}


def test_below_a_base_path_all_but_the_probes_moves(store: FakeStore) -> None:
    client = client_of(store, base_path="/llmobs")
    assert client.get("/llmobs/").status_code == 200
    assert 'content="/llmobs"' in client.get("/llmobs/traces").text
    assert client.get(f"/llmobs{API}/overview").status_code == 200
    assert client.get(f"{API}/overview").status_code == 404
    assert client.get("/healthz").status_code == 200
    for path in asset_paths_below(client):
        assert client.get(path).status_code == 200


def asset_paths_below(client: TestClient) -> list[str]:
    page = client.get("/llmobs/").text
    return [part for part in page.split('"') if part.startswith("/llmobs/assets/")]


@pytest.mark.parametrize("base_path", ["llmobs", "/llmobs/", '/"><script>'])
def test_a_base_path_that_can_not_work_is_refused(store: FakeStore, base_path: str) -> None:
    with pytest.raises(ConfigurationError, match="base_path"):
        client_of(store, base_path=base_path)


def test_other_host_names_get_no_data_where_the_hosts_are_named(store: FakeStore) -> None:
    client = client_of(store, allowed_hosts=("llmobs.example",))
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get(f"{API}/status", headers={"Host": "evil.example"}).status_code == 400
    assert client.get(f"{API}/status", headers={"Host": "llmobs.example"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "10.0.0.7"}).status_code == 200


# Deleting.

ADMIN = {"Authorization": "Bearer admin-secret"}


class Erased:
    """Remembers what it was told to erase."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def __call__(self, owner: str, name: str) -> Row:
        if name == "stuck":
            raise LlmobsError("the analysis stands still")
        if name == "broken":
            raise StoreError("SELECT secret FROM spans")
        self.told.append((owner, name))
        return {"n_spans": 3}


def test_who_has_the_admin_token_deletes_a_user_or_a_session(store: FakeStore) -> None:
    erase = Erased()
    client = client_of(store, admin_token="admin-secret", erase=erase)
    answer = client.delete(f"{API}/users/ann%40example.com", headers=ADMIN)
    assert answer.json() == {"user": "ann@example.com", "n_spans": 3}
    assert client.delete(f"{API}/sessions/tenant%2F7", headers=ADMIN).status_code == 200
    assert erase.told == [("user", "ann@example.com"), ("session", "tenant/7")]


def test_nobody_else_deletes(store: FakeStore) -> None:
    erase = Erased()
    client = client_of(store, token="page-secret", admin_token="admin-secret", erase=erase)
    client.post(f"{API}/login", json={"token": "page-secret"})
    for headers in ({}, {"Authorization": "Bearer page-secret"}):
        answer = client.delete(f"{API}/users/ann", headers=headers)
        assert answer.status_code == 401
    open_to_read = client_of(store, erase=erase)
    answer = open_to_read.delete(f"{API}/users/ann", headers=ADMIN)
    assert answer.status_code == 403
    assert "admin_token" in answer.json()["hint"]
    assert erase.told == []


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("users/", 400, "empty"),
        ("users/ann?since=1h", 400, "unknown parameter"),
        ("users/stuck", 503, "stands still"),
        ("users/broken", 503, "the store failed"),
        ("traces/abc", 405, ""),
    ],
)
def test_what_can_not_be_deleted_says_so(
    store: FakeStore, path: str, status: int, words: str
) -> None:
    client = client_of(store, admin_token="admin-secret", erase=Erased())
    answer = client.delete(f"{API}/{path}", headers=ADMIN)
    assert answer.status_code == status
    assert words in answer.text


def test_a_process_that_does_not_watch_sends_to_the_one_that_does(store: FakeStore) -> None:
    client = client_of(store, admin_token="admin-secret")
    answer = client.delete(f"{API}/users/ann", headers=ADMIN)
    assert answer.status_code == 404
    assert "watch" in answer.json()["hint"]


def test_who_has_the_admin_token_has_a_window_scored_again_piece_by_piece(
    store: FakeStore,
) -> None:
    told: list[tuple[object, ...]] = []

    def rescore(*asked: object) -> Row:
        told.append(asked)
        return {"after": 7, "n_left": 3}

    client = client_of(store, admin_token="admin-secret", rescore=rescore)
    params = {"since": "1d", "scorer": "toxicity,pii", "after": "5"}
    answer = client.post(f"{API}/rescore", params=params, headers=ADMIN)
    now_ns = NOW_MS * 10**6
    assert told == [(now_ns - 86_400 * 10**9, now_ns, ["toxicity", "pii"], 5)]
    assert (answer.json()["after"], answer.json()["n_left"]) == (7, 3)
    assert answer.json()["window"]["until_ms"] == NOW_MS


def test_nobody_else_has_anything_scored_again(store: FakeStore) -> None:
    client = client_of(store, token="page-secret", admin_token="admin-secret", rescore=dict)
    page_token = {"Authorization": "Bearer page-secret"}
    assert client.post(f"{API}/rescore", headers=page_token).status_code == 401
    assert client_of(store, rescore=dict).post(f"{API}/rescore").status_code == 403
    assert client.get(f"{API}/rescore", headers=ADMIN).status_code in {404, 405}


def test_a_process_that_does_not_score_says_who_does(store: FakeStore) -> None:
    client = client_of(store, admin_token="admin-secret")
    answer = client.post(f"{API}/rescore", headers=ADMIN)
    assert answer.status_code == 404
    assert "worker" in answer.json()["hint"]


def test_a_scorer_that_is_not_there_is_the_askers_mistake(store: FakeStore) -> None:
    def rescore(*_: object) -> Row:
        raise ConfigurationError("no scorer 'toxcity' runs here")

    client = client_of(store, admin_token="admin-secret", rescore=rescore)
    answer = client.post(f"{API}/rescore", headers=ADMIN)
    assert answer.status_code == 400
    assert "toxcity" in answer.json()["error"]


def test_a_calibration_is_of_the_share_that_was_asked_for(store: FakeStore) -> None:
    told: list[tuple[object, ...]] = []

    def calibrate(*asked: object) -> list[Row]:
        told.append(asked)
        return [{"name": "toxicity", "threshold": 0.9}]

    client = client_of(store, calibrate=calibrate)
    answer = read(client, "calibration", since="1d", fpr="0.05", scorer="toxicity")
    now_ns = NOW_MS * 10**6
    assert told == [(now_ns - 86_400 * 10**9, now_ns, 0.05, ["toxicity"])]
    assert (answer["fpr"], answer["rows"]) == (0.05, [{"name": "toxicity", "threshold": 0.9}])
    for share in ("0", "1", "nan", "much"):
        assert client.get(f"{API}/calibration", params={"fpr": share}).status_code == 400
    assert client_of(store).get(f"{API}/calibration").status_code == 404


def test_an_empty_admin_token_is_refused(store: FakeStore) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        client_of(store, admin_token="")
