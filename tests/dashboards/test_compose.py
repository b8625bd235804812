"""The compose file, resolved by the real Compose (no engine runs)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compose import resolve, services_of
from tests.dashboards.outside import outside

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return services_of(FILE, GRAFANA_ADMIN_PASSWORD="x" * 12)


def test_it_does_not_start_without_a_password() -> None:
    refused = resolve(FILE)
    assert refused.returncode != 0
    assert "GRAFANA_ADMIN_PASSWORD" in refused.stderr


def test_images_are_pinned_and_ports_stay_on_this_machine(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name


def test_services_are_bounded_restarted_and_without_privileges(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert int(service["mem_limit"]) > 0, name
        assert service["restart"] == "unless-stopped", name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_who_waits_for_health_waits_for_a_service_that_tells_it(services: dict[str, Any]) -> None:
    for service in services.values():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy"
            assert services[other]["healthcheck"]["test"]


def test_mounted_files_exist_and_are_read_only(services: dict[str, Any]) -> None:
    mounts = [v for s in services.values() for v in s.get("volumes", []) if v["type"] == "bind"]
    assert mounts
    for mount in mounts:
        assert Path(mount["source"]).exists(), mount["source"]
        assert mount["read_only"], mount["source"]
        for file in [Path(mount["source"]), *Path(mount["source"]).rglob("*")]:
            if file.suffix in {".yml", ".yaml", ".json"}:
                yaml.safe_load(file.read_text())  # JSON is YAML


def test_no_secret_is_written_down() -> None:
    for service in yaml.safe_load(FILE.read_text())["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET|KEY", name):
                assert value.startswith("${"), name


def test_addresses_between_services_lead_to_services(services: dict[str, Any]) -> None:
    texts = [path.read_text() for path in (ROOT / "deploy").glob("*.y*ml")]
    texts += [(ROOT / "dashboards/provisioning/datasources/llmobs.yml").read_text()]
    hosts = {host for text in texts for host in re.findall(r"https?://([a-z]+):\d+", text)}
    assert hosts
    assert hosts <= services.keys()


def test_the_collector_sends_all_that_it_receives_somewhere() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "collector.yaml").read_text())
    pipelines = config["service"]["pipelines"]
    signals = ("traces", "logs", "metrics")
    # One way to llmobs a signal, one to those beside it.
    assert {name.split("/")[0] for name in pipelines} == set(signals)
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines.values() for name in pipeline[kind]}
        assert used == config[kind].keys()
    for signal in signals:
        assert "otlp_http/llmobs" in pipelines[signal]["exporters"]


def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    # promtool before 3.0 knows no such block, and the rules are mounted elsewhere.
    del config["otlp"]
    config["rule_files"] = [str(ROOT / "dashboards" / "alerts" / "llmobs.yml")]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    checked = subprocess.run(
        [outside("promtool"), "check", "config", str(tmp_path / "prometheus.yml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
