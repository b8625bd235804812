"""Every query of the dashboards and the alert rules, with where it stands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

DASHBOARDS: Final = Path(__file__).parents[2] / "dashboards"
RULES: Final = DASHBOARDS / "alerts" / "llmobs.yml"


class Query(NamedTuple):
    """One PromQL query."""

    where: str
    expr: str


def dashboards() -> list[dict[str, Any]]:
    """Return the dashboards as committed."""
    return [json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("grafana/*.json"))]


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the panels that show something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    """Return the rules of the Prometheus file."""
    return [r for group in yaml.safe_load(RULES.read_text())["groups"] for r in group["rules"]]


def of_panels() -> Iterator[Query]:
    """Yield the queries of the panels."""
    for dashboard in dashboards():
        for panel in panels(dashboard):
            if panel["datasource"]["type"] == "prometheus":
                for target in panel["targets"]:
                    yield Query(f"{dashboard['title']} / {panel['title']}", target["expr"])


def of_rules() -> Iterator[Query]:
    """Yield the queries of the rules."""
    for rule in rules():
        yield Query(rule.get("alert") or rule["record"], rule["expr"])
