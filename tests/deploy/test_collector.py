"""The shipped configurations in a real Collector: what an app was told is kept arrives, once."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    TraceServiceStub,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import llmobs
from llmobs.server import Server
from llmobs.settings import Settings
from tests.deploy.collector import CONFIGS, DEPLOY, Collector, program, short_waits
from tests.deploy.traffic import (
    ids,
    logs,
    metrics,
    send,
    spans_of,
    stored,
    wait_stored,
)
from tests.otlp import chat_span, post, traces_request
from tests.ports import free_ports
from tests.sdk.receiver import Receiver, receiver
from tests.waiting import wait_until


def arrived(analyzer: Receiver) -> list[str]:
    return sorted(span.span_id for span in analyzer.spans)


def in_front_of(url: str, directory: Path, *changes: str) -> Collector:
    """Make a Collector that sends to a plain receiver, without gzip and with short waits."""
    name = "exporters.otlp_http/llmobs"
    return Collector(
        "collector.yaml",
        directory,
        {"ANALYZER_URL": url},
        f"{name}.compression=none",
        *short_waits(name),
        *changes,
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_the_collector_accepts_a_shipped_configuration(name: str, tmp_path: Path) -> None:
    config = yaml.safe_load((DEPLOY / name).read_text())
    if not has("load_balancing"):
        config = without_load_balancing(config)
    checked = validate(config, tmp_path)
    assert checked.returncode == 0, checked.stderr


def test_a_wrong_key_in_a_configuration_is_noticed(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    config = yaml.safe_load((DEPLOY / "collector.yaml").read_text())
    config["exporters"]["otlp_http/llmobs"]["sending_queue"]["quue_size"] = 1
    checked = validate(config, tmp_path)
    assert checked.returncode != 0
    assert "quue_size" in checked.stderr


def test_every_configuration_has_the_same_way_in_and_to_the_other_readers() -> None:
    first, *others = (yaml.safe_load((DEPLOY / name).read_text()) for name in CONFIGS)
    for other in others:
        assert other["receivers"] == first["receivers"]
        assert other["processors"] == first["processors"]
        assert other["extensions"] == first["extensions"]
        for name in ("otlp_grpc/tempo", "otlp_http/loki", "otlp_http/prometheus"):
            assert other["exporters"][name] == first["exporters"][name]
        for name, pipeline in first["service"]["pipelines"].items():
            if "/" in name:
                assert other["service"]["pipelines"][name] == pipeline


@pytest.mark.slow
def test_what_apps_send_is_stored_once_whether_the_analyzer_or_the_collector_was_down(
    tmp_path: Path,
) -> None:
    chance = random.Random(3)
    (http_port,) = free_ports(1)
    settings = Settings(
        data=tmp_path / "data", http_port=http_port, grpc_port=0, web_port=0,
        segment_max_age_s=0.1, scorers=("language",),
    )  # fmt: skip
    env = {"ANALYZER_URL": f"http://127.0.0.1:{http_port}"}
    with Collector("collector.yaml", tmp_path, env).running() as collector:
        over_http, over_grpc = spans_of(chance, 40), spans_of(chance, 20)
        send(collector, over_http)
        with grpc.insecure_channel(f"127.0.0.1:{collector.grpc_port}") as channel:
            request = ExportTraceServiceRequest.FromString(traces_request(over_grpc))
            TraceServiceStub(channel).Export(request)  # type: ignore[no-untyped-call]
        for path, body in (("/v1/logs", logs(20)), ("/v1/metrics", metrics(5))):
            assert post(collector.http_port, body, path=path)[0] == 200
        n_spans = len(over_http) + len(over_grpc)
        with Server(settings) as server:
            server.wait_ready()
            wait_stored(server, traces=n_spans, logs=20, metrics=5)
            n_spans += use_the_sdk(collector.url)
            for _ in range(4):
                more = spans_of(chance, 20)
                send(collector, more)
                over_http += more
                # About when a batch goes out: what was stored may still be in the queue.
                time.sleep(chance.uniform(0.9, 1.2))
                collector.kill()
                collector.start()
                n_spans += len(more)
            wait_stored(server, traces=n_spans)
    found = stored(settings.data)
    assert set(ids(over_http + over_grpc)) <= set(found["spans"])
    assert [span for span, n in Counter(found["spans"]).items() if n > 1] == []
    assert len(found["spans"]) == n_spans
    assert found["rolled_up"] == len(found["spans"])
    assert found["events"].count("test.event") == 20
    assert found["metrics"].count("test.metric") == 5
    assert set(found["names"]) == {"tests", "through-the-collector"}


@pytest.mark.parametrize("status", [429, 503])
def test_an_analyzer_that_is_full_gets_each_span_once_when_it_has_room(
    status: int, tmp_path: Path
) -> None:
    spans = spans_of(random.Random(status), 100)
    with receiver() as analyzer, in_front_of(analyzer.url, tmp_path).running() as collector:
        analyzer.mode = status
        send(collector, spans)
        analyzer.arrived.wait(10)
        time.sleep(1.0)
        assert arrived(analyzer) == []
        analyzer.mode = "ok"
        wait_until(lambda: len(analyzer.spans) >= len(spans))
        time.sleep(1.0)
    assert arrived(analyzer) == ids(spans)


def test_a_collector_that_is_killed_sends_what_it_had_queued_when_it_is_back(
    tmp_path: Path,
) -> None:
    spans = spans_of(random.Random(5), 100)
    with receiver() as analyzer:
        analyzer.mode = 503
        collector = in_front_of(analyzer.url, tmp_path)
        with collector.running():
            send(collector, spans)
            collector.kill()
        analyzer.mode = "ok"
        with collector.running():
            wait_until(lambda: len(analyzer.spans) >= len(spans))
    assert arrived(analyzer) == ids(spans)


def test_a_reader_beside_the_analyzer_that_is_down_stops_nobody(tmp_path: Path) -> None:
    spans = spans_of(random.Random(6), 200)
    beside = (
        # One batch waits, the rest finds no room.
        "exporters.otlp_grpc/tempo.sending_queue.queue_size=1",
        "processors.batch.timeout=10ms",
    )
    with receiver() as analyzer, in_front_of(analyzer.url, tmp_path, *beside).running() as it:
        send(it, spans, a_request=10)
        wait_until(lambda: len(analyzer.spans) >= len(spans))
        wait_until(lambda: "sending queue is full" in it.output)
    assert arrived(analyzer) == ids(spans)


def test_apps_are_asked_to_wait_when_the_queue_is_full(tmp_path: Path) -> None:
    small = "exporters.otlp_http/llmobs.sending_queue.queue_size=600000"
    chance = random.Random(7)
    with receiver() as analyzer, in_front_of(analyzer.url, tmp_path, small).running() as it:
        analyzer.mode = 503
        accepted: list[Span] = []
        status = 200
        while status == 200 and len(accepted) < 5000:
            spans = spans_of(chance, 20)
            status, _ = post(it.http_port, traces_request(spans))
            accepted += spans if status == 200 else []
        assert status == 503  # OTLP: try again
        analyzer.mode = "ok"
        wait_until(lambda: len(analyzer.spans) >= len(accepted))
    assert arrived(analyzer) == ids(accepted)


def test_a_span_of_some_megabytes_takes_nothing_down_with_it(tmp_path: Path) -> None:
    chance = random.Random(8)
    spans = [*spans_of(chance, 10), chat_span(chance, text="long " * 2_000_000)]
    with receiver() as analyzer, in_front_of(analyzer.url, tmp_path).running() as collector:
        send(collector, spans, a_request=1)
        wait_until(lambda: len(analyzer.spans) >= len(spans))
    assert arrived(analyzer) == ids(spans)


def test_the_ingest_key_goes_along(tmp_path: Path) -> None:
    with receiver() as analyzer:
        env = {"ANALYZER_URL": analyzer.url, "LLMOBS_INGEST_KEY": "k-1"}
        plain = "exporters.otlp_http/llmobs.compression=none"
        with Collector("collector.yaml", tmp_path, env, plain).running() as collector:
            send(collector, spans_of(random.Random(9), 1))
            analyzer.wait_for_spans(3)
    headers = {name.lower(): value for name, value in analyzer.requests[0][2].items()}
    assert headers["x-api-key"] == "k-1"


def test_all_of_a_trace_goes_to_one_analyzer(tmp_path: Path) -> None:
    if not has("load_balancing"):
        pytest.skip("this Collector has no load_balancing; set OTELCOL to a contrib one")
    config = yaml.safe_load((DEPLOY / "collector-loadbalancing.yaml").read_text())
    spans = spans_of(random.Random(10), 200)
    with analyzers(2) as (ports, kept):
        hosts = [f"127.0.0.1:{port}" for port in ports]
        balancer = config["exporters"]["load_balancing/llmobs"]
        balancer["resolver"] = {"static": {"hostnames": hosts}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        with Collector(tmp_path / "config.yaml", tmp_path, {}).running() as collector:
            send(collector, spans)
            wait_until(lambda: sum(len(of_one) for of_one in kept) >= len(spans))
    assert ids([*kept[0], *kept[1]]) == ids(spans)
    first, second = ({span.trace_id for span in of_one} for of_one in kept)
    assert first.isdisjoint(second)
    assert min(len(first), len(second)) > 50


def validate(config: dict[str, Any], directory: Path) -> subprocess.CompletedProcess[str]:
    """Ask the Collector what it thinks of a configuration."""
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    command = [program(), "validate", f"--config={directory / 'config.yaml'}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def has(component: str) -> bool:
    listed = subprocess.run([program(), "components"], capture_output=True, text=True, check=True)
    return f"name: {component}\n" in listed.stdout


def without_load_balancing(config: dict[str, Any]) -> dict[str, Any]:
    """Replace that exporter by the one it makes for each analyzer: the rest can be checked."""
    exporters = config["exporters"]
    for name in [name for name in exporters if name.startswith("load_balancing/")]:
        balancer = exporters.pop(name)
        exporters["otlp_grpc/one"] = {
            **balancer["protocol"]["otlp"],
            "endpoint": "analyzer:4317",
            **{key: balancer[key] for key in ("retry_on_failure", "sending_queue")},
        }
        config["service"]["pipelines"]["traces"]["exporters"] = ["otlp_grpc/one"]
    return config


@contextmanager
def analyzers(n: int) -> Iterator[tuple[list[int], list[list[Span]]]]:
    """Run receivers of OTLP/gRPC; gives their ports and what each has received."""
    kept: list[list[Span]] = [[] for _ in range(n)]
    servers = [grpc.server(ThreadPoolExecutor(2)) for _ in range(n)]
    ports = []
    for server, of_one in zip(servers, kept, strict=True):
        add_TraceServiceServicer_to_server(_Keeps(of_one), server)  # type: ignore[no-untyped-call]
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        server.start()
    try:
        yield ports, kept
    finally:
        for server in servers:
            server.stop(None).wait()


class _Keeps(TraceServiceServicer):
    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans

    def Export(self, request: ExportTraceServiceRequest, context: object) -> Any:
        for of_resource in request.resource_spans:
            for of_scope in of_resource.scope_spans:
                self._spans += of_scope.spans
        return ExportTraceServiceResponse()


def use_the_sdk(url: str) -> int:
    """Run a decorated function some times and return how many spans that makes."""
    llmobs.init("through-the-collector", endpoint=url)
    try:

        @llmobs.observe(kind="chat", model="gpt-4o-mini")
        def ask(prompt: str) -> str:
            return prompt

        for _ in range(7):
            ask("Is it there?")
        assert llmobs.flush(10)
    finally:
        llmobs.shutdown()
    return 7
