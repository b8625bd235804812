"""The overlay for many workers, resolved by the real Compose (no engine runs)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from llmobs.settings import Settings
from tests.compose import resolve, services_of
from tests.deploy.collector import CONFIGS, DEPLOY

FILES = (DEPLOY.parent / "docker-compose.yml", DEPLOY / "docker-compose.scale.yml")
SECRETS = {"GRAFANA_ADMIN_PASSWORD": "0" * 12, "CLICKHOUSE_PASSWORD": "1" * 12}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return services_of(*FILES, **SECRETS)


def test_it_does_not_start_without_a_password_for_the_store() -> None:
    refused = resolve(*FILES, GRAFANA_ADMIN_PASSWORD="0" * 12)
    assert refused.returncode != 0
    assert "CLICKHOUSE_PASSWORD" in refused.stderr


def test_one_service_watches_and_the_workers_are_as_many_as_one_says(
    services: dict[str, Any],
) -> None:
    roles = {
        name: service["environment"]["LLMOBS_ROLE"]
        for name, service in services.items()
        if "LLMOBS_ROLE" in (service.get("environment") or {})
    }
    assert roles == {"analyzer": "watch", "worker": "worker"}
    assert services["worker"]["deploy"]["replicas"] == 3
    # Replicas must not share a folder, nor ask for the same port of the machine.
    assert services["worker"].get("volumes", []) == []
    assert services["worker"].get("ports", []) == []
    asked = services_of(*FILES, WORKERS="7", **SECRETS)
    assert asked["worker"]["deploy"]["replicas"] == 7


@pytest.mark.parametrize("name", ["analyzer", "worker"])
def test_the_analyzers_know_every_variable_that_they_are_given(
    name: str, services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = services[name]["environment"]
    fields = {f"LLMOBS_{field.upper()}" for field in Settings.model_fields}
    assert given.keys() <= fields
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    settings = Settings()
    assert urlsplit(settings.store).hostname == "clickhouse"
    if name == "worker":
        assert settings.log is not None
        assert urlsplit(settings.log.get_secret_value()).netloc == "kafka:9092"


def test_all_sides_mean_the_same_topics_and_the_same_largest_record(
    services: dict[str, Any],
) -> None:
    config = yaml.safe_load((DEPLOY / "collector-kafka.yaml").read_text())
    exporter = config["exporters"]["kafka/llmobs"]
    written = {exporter[signal]["topic"] for signal in ("traces", "logs", "metrics")}
    made = re.search(r"for topic in ([\w ]+);", services["topics"]["command"][-1])
    assert made is not None
    assert set(made[1].split()) == written == {"otlp_spans", "otlp_logs", "otlp_metrics"}
    assert "prefix=otlp_" in services["worker"]["environment"]["LLMOBS_LOG"]
    broker = services["kafka"]["environment"]
    assert int(broker["KAFKA_MESSAGE_MAX_BYTES"]) >= exporter["producer"]["max_message_bytes"]
    assert int(broker["KAFKA_NUM_PARTITIONS"]) >= services["worker"]["deploy"]["replicas"]


def test_a_record_and_a_request_to_the_analyzer_stay_below_their_limits() -> None:
    limit = Settings.model_fields["max_request_bytes"].default
    for file in CONFIGS:
        config = yaml.safe_load((DEPLOY / file).read_text())
        protocols = config["receivers"]["otlp"]["protocols"]
        largest = max(
            protocols["grpc"]["max_recv_msg_size_mib"] << 20,
            protocols["http"]["max_request_body_size"],
        )
        for name, exporter in config["exporters"].items():
            if not name.endswith("/llmobs"):
                continue
            batch = exporter["sending_queue"]["batch"]
            assert "max_size" not in batch, name
            ceiling = exporter.get("producer", {}).get("max_message_bytes", limit)
            assert largest + batch["min_size"] < ceiling, name


def test_the_collector_reads_the_configuration_for_kafka(services: dict[str, Any]) -> None:
    mounts = {mount["target"]: mount for mount in services["collector"]["volumes"]}
    config = mounts["/etc/otelcol/collector.yaml"]
    assert Path(config["source"]) == DEPLOY / "collector-kafka.yaml"
    assert config["read_only"]
    assert mounts["/var/lib/otelcol"]["type"] == "volume"


def test_every_service_is_bounded_and_without_privileges(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert int(service["mem_limit"]) > 0, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.search(r":v?\d+\.\d+(\.\d+)?$", service["image"]), name
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name


def test_who_waits_waits_for_something_that_happens(services: dict[str, Any]) -> None:
    for service in services.values():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_completed_successfully":
                assert services[other]["restart"] == "no"
            else:
                assert services[other]["healthcheck"]["test"]


def test_prometheus_scrapes_the_workers_too(services: dict[str, Any]) -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert found["port"] == Settings.model_fields["web_port"].default
    assert set(found["names"]) <= services.keys()
