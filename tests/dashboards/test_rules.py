"""The alert rules, run by promtool on made-up series."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.dashboards.outside import outside
from tests.dashboards.queries import RULES


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [outside("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_rule_file_is_valid() -> None:
    checked = promtool("check", "rules", "--lint=all", RULES)
    assert checked.returncode == 0, checked.stderr


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    tested = promtool("test", "rules", RULES.with_name("llmobs_test.yml"))
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize(
    ("floor", "name", "noticed"),
    [
        (
            "and llmobs:calls:rate1h * 3600 >= 50",
            "one failure of three calls is no page",
            'llmobs_feature="rare"',
        ),
        (
            "and sum by (service_name) (increase(llmobs_calls_missing_total[1h])) >= 20",
            "a few lost calls, or many among very many, or a loss that is over, is no ticket",
            'service_name="mended"',
        ),
    ],
)
def test_the_rule_tests_notice_a_missing_floor(
    tmp_path: Path, floor: str, name: str, noticed: str
) -> None:
    rules = RULES.read_text()
    assert floor in rules
    (tmp_path / RULES.name).write_text(rules.replace(floor, "", 1))
    tests = yaml.safe_load(RULES.with_name("llmobs_test.yml").read_text())
    tests["tests"] = [test for test in tests["tests"] if test["name"] == name]
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    tested = promtool("test", "rules", tmp_path / "tests.yml")
    assert tested.returncode != 0
    assert noticed in tested.stdout + tested.stderr
