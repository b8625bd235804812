"""Prometheus alert rules as Grafana-managed rules, converted as Grafana's own importer does.

An alert becomes three steps: the query, which returns only series that violate; a check
whether there is a number; a threshold above 0. No series then means that nothing violates, so
`noDataState` is OK; a query that fails must not look healthy, so `execErrState` is Error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

__all__ = ["RuleFile", "api_groups", "provisioning_file"]

RuleFile: TypeAlias = Mapping[str, Any]
"""A Prometheus rule file as YAML gives it."""

# Grafana's limits.
_MAX_UID: Final = 40
_TICK_S: Final = 10
# How far back Grafana shows the query's graph; the query itself has its own windows.
_SHOWN_S: Final = 600
_EXPRESSION: Final = "__expr__"
_UNIT_S: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def api_groups(rules: RuleFile, *, folder: str, datasource: str) -> list[dict[str, Any]]:
    """Convert a rule file to the groups that Grafana's API takes.

    Recording rules become no rules of their own: each alert carries their expressions, so
    that it works whether or not that Prometheus has loaded the file.

    Args:
        rules: The rule file.
        folder: Uid of the folder.
        datasource: Uid of the Prometheus data source.
    """
    recorded = {
        rule["record"]: rule["expr"]
        for group in rules["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    groups = []
    for name, interval, alerts in _alert_groups(rules):
        converted = [
            {
                **_rule(alert, _inlined(alert["expr"], recorded), folder, datasource),
                "keep_firing_for": str(alert.get("keep_firing_for", "0s")),
                "orgID": 1,
                "folderUID": folder,
                "ruleGroup": name,
            }
            for alert in alerts
        ]
        groups.append(
            {
                "title": name,
                "folderUid": folder,
                "interval": max(_TICK_S, round(_seconds(interval) / _TICK_S) * _TICK_S),
                "rules": converted,
            }
        )
    return groups


def provisioning_file(
    rules: RuleFile, *, folder: str, folder_title: str, datasource: str
) -> dict[str, Any]:
    """Convert a rule file to a file for Grafana's `provisioning/alerting`.

    Recording rules are left to the Prometheus that loads the same rule file.
    """
    groups = []
    for name, interval, alerts in _alert_groups(rules):
        converted = []
        for alert in alerts:
            rule = _rule(alert, alert["expr"], folder, datasource)
            # The file spells some keys differently, and expands $NAME in labels.
            rule["keepFiringFor"] = str(alert.get("keep_firing_for", "0s"))
            rule["labels"] = {k: v.replace("$", "$$") for k, v in rule["labels"].items()}
            rule["dashboardUid"] = rule["annotations"]["__dashboardUid__"]
            rule["panelId"] = int(rule["annotations"]["__panelId__"])
            converted.append(rule)
        groups.append(
            {
                "orgId": 1,
                "name": name,
                "folder": folder_title,
                "interval": interval,
                "rules": converted,
            }
        )
    return {"apiVersion": 1, "groups": groups}


def _alert_groups(rules: RuleFile) -> Iterator[tuple[str, str, list[Mapping[str, Any]]]]:
    for group in rules["groups"]:
        alerts = [rule for rule in group["rules"] if "alert" in rule]
        if alerts:
            yield group["name"], str(group.get("interval", "1m")), alerts


def _rule(alert: Mapping[str, Any], expr: str, folder: str, datasource: str) -> dict[str, Any]:
    name = alert["alert"]
    query = {
        "refId": "query",
        "datasourceUid": datasource,
        "relativeTimeRange": {"from": _SHOWN_S, "to": 0},
        "queryType": "prometheus",
        "model": {
            "refId": "query",
            "datasource": {"type": "prometheus", "uid": datasource},
            "expr": expr,
            "instant": True,
            "range": False,
            "intervalMs": 1000,
            "maxDataPoints": 43200,
        },
    }
    is_number = "is_number($query) || is_nan($query) || is_inf($query)"
    above_zero = [{"evaluator": {"type": "gt", "params": [0]}}]
    return {
        "uid": _uid(folder, name),
        "title": name,
        "condition": "threshold",
        "data": [
            query,
            _expression("prometheus_math", "math", expression=is_number),
            _expression(
                "threshold", "threshold", expression="prometheus_math", conditions=above_zero
            ),
        ],
        "for": str(alert.get("for", "0s")),
        "noDataState": "OK",
        "execErrState": "Error",
        "isPaused": False,
        "labels": {key: str(value) for key, value in alert.get("labels", {}).items()},
        # In Grafana's templates $value is a text; the number is in $values by step.
        "annotations": {
            key: re.sub(r"\$value\b", "$values.query.Value", str(value))
            for key, value in alert.get("annotations", {}).items()
        },
    }


def _expression(ref: str, kind: str, **model: Any) -> dict[str, Any]:
    source = {"type": _EXPRESSION, "uid": _EXPRESSION}
    return {
        "refId": ref,
        "datasourceUid": _EXPRESSION,
        "relativeTimeRange": {"from": 0, "to": 0},
        "queryType": kind,
        "model": {"refId": ref, "type": kind, "datasource": source, **model},
    }


def _inlined(expr: str, recorded: Mapping[str, str]) -> str:
    """Put the expressions of recording rules in the place of their names."""
    for name, recording in recorded.items():
        if name in expr:
            whole = rf"(?<![\w:]){re.escape(name)}(?![\w:])"
            inner = f"({_inlined(recording, recorded)})".replace("\\", r"\\")
            expr = re.sub(whole, inner, expr)
    return expr


def _uid(*parts: str) -> str:
    uid = re.sub(r"[^a-z0-9_-]+", "-", "-".join(parts).lower()).strip("-")
    if len(uid) <= _MAX_UID:
        return uid
    return f"{uid[: _MAX_UID - 9]}-{hashlib.sha256(uid.encode()).hexdigest()[:8]}"


def _seconds(duration: str) -> float:
    parts = re.findall(r"(\d+)(ms|[smhdwy])", duration)
    return sum(int(number) * _UNIT_S[unit] for number, unit in parts)
