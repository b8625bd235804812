from __future__ import annotations

import copy
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llmobs.analyzer.publish.grafana import Assets, GrafanaPublisher, PublishError, load_assets
from llmobs.errors import ConfigurationError
from tests.analyzer.notify.findings import NOON, finding
from tests.analyzer.publish.fake_grafana import LOGIN, TOKEN, FakeGrafana, fake_grafana


@pytest.fixture
def grafana() -> Iterator[FakeGrafana]:
    with fake_grafana() as running:
        yield running
    assert not running.problems


@pytest.fixture(scope="module")
def assets() -> Assets:
    return load_assets()


def publisher(url: str, token: str = TOKEN) -> GrafanaPublisher:
    return GrafanaPublisher(url, token=token, sleep=lambda _: None)


def test_a_push_brings_folder_dashboards_and_rules(grafana: FakeGrafana, assets: Assets) -> None:
    done = publisher(grafana.url).push(assets)
    assert done[0] == "create folder LLM observability"
    assert "create dashboard LLM / Overview" in done
    assert {d["folderUid"] for d in grafana.dashboards.values()} == {"llmobs"}
    assert len(grafana.dashboards) == len(assets.dashboards)
    alerts = {r["alert"] for g in assets.rules["groups"] for r in g["rules"] if "alert" in r}
    assert {rule["title"] for rule in grafana.rules.values()} == alerts


def test_a_second_push_changes_nothing(grafana: FakeGrafana, assets: Assets) -> None:
    publisher(grafana.url).push(assets)
    before, n_calls = grafana.state(), len(grafana.calls)
    assert publisher(grafana.url).push(assets) == []
    assert grafana.state() == before
    assert all(call.startswith("GET ") for call in grafana.calls[n_calls:])


def test_a_diff_says_what_a_push_would_do_and_does_nothing(
    grafana: FakeGrafana, assets: Assets
) -> None:
    would = publisher(grafana.url).diff(assets)
    assert not grafana.folders
    assert would == publisher(grafana.url).push(assets)
    assert publisher(grafana.url).diff(assets) == []


def test_what_somebody_changed_by_hand_is_put_back_and_nothing_else(
    grafana: FakeGrafana, assets: Assets
) -> None:
    publisher(grafana.url).push(assets)
    grafana.dashboards["llmobs-cost"]["dashboard"]["panels"][1]["title"] = "My cost"
    grafana.rules["llmobs-llmdrift"]["for"] = "1h"
    assert publisher(grafana.url).push(assets) == [
        "update dashboard LLM / Cost",
        "update 4 alert rules of llmobs-quality",
    ]


def test_a_rule_that_is_gone_from_the_file_is_gone_from_grafana(
    grafana: FakeGrafana, assets: Assets
) -> None:
    publisher(grafana.url).push(assets)
    rules = copy.deepcopy(assets.rules)
    for group in rules["groups"]:
        group["rules"] = [r for r in group["rules"] if r.get("alert") != "LlmDrift"]
    # A whole group is compared, so fewer rules are a difference.
    assert publisher(grafana.url).push(replace(assets, rules=rules))
    assert "llmobs-llmdrift" not in grafana.rules


def test_a_pushed_rule_stands_on_its_own(grafana: FakeGrafana, assets: Assets) -> None:
    publisher(grafana.url).push(assets)
    burn = grafana.rules["llmobs-llmerrorbudgetburnsfast"]
    query = burn["data"][0]["model"]["expr"]
    assert "llmobs:" not in query  # no recording rule needed
    assert "llmobs_calls_total" in query
    assert burn["annotations"]["description"].startswith("{{ $values.query.Value |")
    assert (burn["noDataState"], burn["execErrState"]) == ("OK", "Error")


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_grafana_below_a_path_is_reached(assets: Assets, slash: str) -> None:
    with fake_grafana("/monitoring/grafana") as grafana:
        publisher(grafana.url + slash).push(assets)
        assert grafana.dashboards
        assert not grafana.problems


def test_user_and_password_serve_as_well_as_a_token(grafana: FakeGrafana) -> None:
    assert publisher(grafana.url, token=":".join(LOGIN)).diff()
    with_login = grafana.url.replace("http://", f"http://{':'.join(LOGIN)}@")
    assert publisher(with_login, token="").diff()


def test_wrong_credentials_say_what_is_needed_and_do_not_show_them(grafana: FakeGrafana) -> None:
    with pytest.raises(ConfigurationError, match="role Editor") as caught:
        publisher(grafana.url, token="glsa_wrong").push()
    assert "glsa_wrong" not in str(caught.value)


def test_a_hiccup_is_waited_out(grafana: FakeGrafana, assets: Assets) -> None:
    grafana.failures = [503, 429]
    waits: list[float] = []
    GrafanaPublisher(grafana.url, token=TOKEN, sleep=waits.append).push(assets)
    assert waits == [1.0, 2.0]
    assert grafana.dashboards


def test_an_outage_is_said_after_a_bounded_wait(grafana: FakeGrafana) -> None:
    grafana.failures = [503] * 4
    with pytest.raises(PublishError, match="whether it runs"):
        publisher(grafana.url).push()
    assert len(grafana.calls) == 4


def test_a_grafana_that_is_not_there_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(PublishError, match="does not answer"):
            publisher(f"http://127.0.0.1:{taken.getsockname()[1]}").push()


def test_rules_of_a_file_are_left_to_the_file(grafana: FakeGrafana) -> None:
    publisher(grafana.url).push()
    grafana.dashboards.clear()
    grafana.failures = [409]
    with pytest.raises(ConfigurationError, match="one owner"):
        publisher(grafana.url).push()


def test_the_rules_take_the_prometheus_that_is_there(grafana: FakeGrafana) -> None:
    grafana.datasources.clear()
    grafana.add_prometheus("mimir-eu")
    publisher(grafana.url).push()
    sources = {rule["data"][0]["datasourceUid"] for rule in grafana.rules.values()}
    assert sources == {"mimir-eu"}


def test_no_prometheus_or_several_without_a_default_is_asked_about(grafana: FakeGrafana) -> None:
    grafana.datasources.clear()
    with pytest.raises(ConfigurationError, match="there are: none"):
        publisher(grafana.url).push()
    grafana.add_prometheus("eu")
    grafana.add_prometheus("us")
    with pytest.raises(ConfigurationError, match=r"eu \(Eu\), us \(Us\)"):
        publisher(grafana.url).push()
    GrafanaPublisher(grafana.url, token=TOKEN, datasource="us").push()
    assert {r["data"][0]["datasourceUid"] for r in grafana.rules.values()} == {"us"}


def test_a_finding_is_marked_once_and_its_end_is_added(grafana: FakeGrafana) -> None:
    marks = publisher(grafana.url)
    found = finding(id="a/b c", summary="<b>refunds</b> went up")
    marks.annotate(found)
    marks.annotate(found)
    (mark,) = grafana.annotations.values()
    assert mark["time"] == found.onset_ns // 10**6
    assert mark["timeEnd"] == NOON // 10**6
    assert mark["tags"] == ["llmobs", "input", "monitor:input.topic", "finding:a/b c"]
    assert mark["text"] == "&lt;b&gt;refunds&lt;/b&gt; went up"
    marks.annotate(found, until_ns=NOON + 10**9)
    (mark,) = grafana.annotations.values()
    assert mark["timeEnd"] == NOON // 10**6 + 1000
    assert "llmobs" in mark["tags"]


def test_a_mark_is_tried_once_for_the_outbox_tries_again(grafana: FakeGrafana) -> None:
    grafana.failures = [503]
    with pytest.raises(PublishError):
        publisher(grafana.url).annotate(finding())
    assert len(grafana.calls) == 1


def test_a_wrong_address_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no URL"):
        GrafanaPublisher("grafana:3000")
    with pytest.raises(ConfigurationError, match="no dashboards"):
        load_assets(tmp_path)
