from __future__ import annotations

from typing import Any

from llmobs.analyzer.publish.rules import api_groups, provisioning_file


def rule_file(**alert: Any) -> dict[str, Any]:
    recording = {"record": "app:ratio5m", "expr": "rate(errors[5m]) / app:rate5m"}
    notes = {"summary": "{{ $value | humanize }}", "__dashboardUid__": "d", "__panelId__": "7"}
    return {
        "groups": [
            {"name": "sli", "rules": [{"record": "app:rate5m", "expr": "rate(x[5m])"}, recording]},
            {
                "name": "alerts",
                "interval": "25s",
                "rules": [
                    {"alert": "High", "expr": "app:ratio5m > 1", "annotations": notes, **alert}
                ],
            },
        ]
    }


def pushed(**alert: Any) -> dict[str, Any]:
    (group,) = api_groups(rule_file(**alert), folder="f", datasource="p")
    assert group["interval"] == 20  # a multiple of Grafana's ten seconds
    found: dict[str, Any] = group["rules"][0]
    return found


def test_recorded_names_are_replaced_by_what_they_record_and_by_nothing_else() -> None:
    expr = "app:ratio5m > 1 and app:ratio5m_old > 1"
    query = pushed(expr=expr)["data"][0]["model"]["expr"]
    assert query == "(rate(errors[5m]) / (rate(x[5m]))) > 1 and app:ratio5m_old > 1"


def test_the_number_in_a_message_is_that_of_the_query() -> None:
    assert pushed()["annotations"]["summary"] == "{{ $values.query.Value | humanize }}"


def test_a_name_that_is_too_long_for_grafana_is_cut_and_stays_unique() -> None:
    first, second = (pushed(alert=f"{'Long' * 20}{i}")["uid"] for i in range(2))
    assert len(first) == 40
    assert first != second
    assert pushed(alert="Burns Fast!")["uid"] == "f-burns-fast"


def test_a_file_keeps_recorded_names_and_spells_its_keys_its_own_way() -> None:
    rules = rule_file(labels={"cost": "$5"}, keep_firing_for="5m")
    made = provisioning_file(rules, folder="f", folder_title="F", datasource="p")
    (group,) = made["groups"]
    (rule,) = group["rules"]
    assert group["folder"] == "F"
    assert rule["data"][0]["model"]["expr"] == "app:ratio5m > 1"
    assert (rule["dashboardUid"], rule["panelId"]) == ("d", 7)
    assert rule["keepFiringFor"] == "5m"
    assert rule["labels"]["cost"] == "$$5"  # Grafana expands $NAME in a file
