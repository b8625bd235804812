"""What can be said of the dashboards and alerts without running them."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Final

import pytest
import yaml

from llmobs.analyzer.publish.catalogue import METRICS, metric
from tests.dashboards.queries import (
    DASHBOARDS,
    Query,
    dashboards,
    of_panels,
    of_rules,
    panels,
    rules,
)

LABELS: Final = {label for spec in METRICS for label in spec.prometheus_labels}
UNITLESS: Final = {"table", "state-timeline"}
VARIABLES: Final = re.compile(r"\$\{?(\w+)")


def metrics_of(query: str) -> set[str]:
    return set(re.findall(r"(?<!:)\bllmobs_\w+", query)) - LABELS


def test_the_committed_files_are_what_the_sources_make() -> None:
    build = [sys.executable, str(DASHBOARDS / "build.py"), "--check"]
    differ = subprocess.run(build, capture_output=True, text=True, check=False)
    assert differ.stdout == "", "run: python dashboards/build.py"
    assert differ.returncode == 0, differ.stderr


@pytest.mark.parametrize("query", [*of_panels(), *of_rules()], ids=lambda q: q.where)
def test_a_query_names_metrics_and_labels_that_exist(query: Query) -> None:
    specs = {name: metric(name) for name in metrics_of(query.expr)}
    assert None not in specs.values(), {n for n, spec in specs.items() if spec is None}
    for name, spec in specs.items():
        assert spec is not None
        for matchers in re.findall(rf"{name}\{{([^}}]*)\}}", query.expr):
            named = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) - {"le"}
            assert named <= set(spec.prometheus_labels), name
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query.expr))))
    known = {label for spec in specs.values() if spec for label in spec.prometheus_labels}
    assert grouped - {"le"} <= known or not specs
    if "histogram_quantile" in query.expr:
        assert re.search(r"by \(le\b", query.expr)


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda d: d["uid"])
def test_a_dashboard_is_small_explained_and_leads_on(
    dashboard: dict[str, object],
) -> None:
    shown = panels(dashboard)
    known = {d["uid"] for d in dashboards()}
    assert 1 <= len(shown) <= 15
    assert dashboard["description"]
    assert dashboard["schemaVersion"] == 42
    ids = [panel["id"] for panel in dashboard["panels"]]  # type: ignore[attr-defined]
    assert len(set(ids)) == len(ids)
    for panel in shown:
        where = panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["description"], where
        assert panel["type"] in UNITLESS or defaults.get("unit"), where
        links = [*panel.get("links", []), *defaults.get("links", [])]
        assert links, where
        for link in links:
            target = re.match(r"/d/([\w-]+)\?", link["url"])
            assert target, where
            assert target[1] in known, where


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda d: d["uid"])
def test_a_dashboard_has_the_variables_that_it_uses_and_no_other(
    dashboard: dict[str, object],
) -> None:
    declared = {v["name"] for v in dashboard["templating"]["list"]}  # type: ignore[index]
    text = str(panels(dashboard))
    used = {name for name in VARIABLES.findall(text) if not name.startswith("__")}
    assert used == declared


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda d: d["uid"])
def test_panels_fill_their_lines_and_do_not_overlap(dashboard: dict[str, object]) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:  # type: ignore[attr-defined]
        grid = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not covered & cells, panel["title"]
        cells |= covered
    height = 1 + max(y for _, y in cells)
    assert len(cells) == 24 * height


def test_an_alert_says_who_is_woken_what_to_do_and_where_to_look() -> None:
    ids = {(d["uid"], str(p["id"])) for d in dashboards() for p in panels(d)}
    for rule in rules():
        if "alert" not in rule:
            continue
        notes = rule["annotations"]
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert notes["summary"]
        assert notes["description"]
        assert notes["runbook_url"]
        assert (notes["__dashboardUid__"], notes["__panelId__"]) in ids, rule["alert"]


def test_the_alerts_use_no_name_that_is_not_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = {n for rule in rules() for n in re.findall(r"llmobs:[\w:]+", rule["expr"])}
    assert used <= recorded


def test_provisioned_sources_refer_to_each_other_and_escape_their_dollars() -> None:
    path = DASHBOARDS / "provisioning" / "datasources" / "llmobs.yml"
    sources = yaml.safe_load(path.read_text())["datasources"]
    uids = {source["uid"] for source in sources}
    assert set(re.findall(r"datasourceUid: (\w+)", path.read_text())) <= uids
    # Grafana would expand a single dollar from its environment, to nothing.
    values = [line.partition("#")[0] for line in path.read_text().splitlines()]
    assert not [line for line in values if re.search(r"(?<!\$)\$(?!\$)", line)]
    for source in sources:
        for query in source["jsonData"].get("tracesToMetrics", {}).get("queries", []):
            assert all(metric(name) for name in metrics_of(query["query"]))


def test_the_provisioned_rules_are_the_alerts_with_their_panels() -> None:
    path = DASHBOARDS / "provisioning" / "alerting" / "rules.yml"
    made = [r for group in yaml.safe_load(path.read_text())["groups"] for r in group["rules"]]
    assert [r["title"] for r in made] == [r["alert"] for r in rules() if "alert" in r]
    assert len({r["uid"] for r in made}) == len(made)
    for rule in made:
        assert str(rule["panelId"]) == rule["annotations"]["__panelId__"]
        assert "keep_firing_for" not in rule  # a file spells it keepFiringFor
