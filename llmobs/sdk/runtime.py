"""What one initialized process records with. `active` is None before `llmobs.init`."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON, Sampler

from llmobs import semconv
from llmobs.sdk.buffer import Buffer
from llmobs.sdk.content import ContentMode

__all__ = ["Names", "Place", "Protocol", "Runtime", "Settings", "active"]

Protocol: TypeAlias = Literal["http/protobuf", "grpc"]
Names: TypeAlias = Literal["current", "released"]
Place: TypeAlias = Literal["span", "event", "both"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What `llmobs.init` was told, with the environment and the defaults filled in.

    Attributes:
        endpoint: Base URL; None leaves it to ``OTEL_EXPORTER_OTLP_ENDPOINT`` and the exporters.
        content: How much of prompts and answers leaves the process.
        content_place: Whether content goes on the span, on the details event, or on both.
        queue_capacity_bytes: Memory for what waits, about.
        export_interval_s: Longest time that a span waits for a batch to fill.
        retry_s: How long a batch that the receiver doesn't take is kept and tried again.
        max_characters: Longest text of content that is sent.
        foreign: Which spans of other instrumentations are sent: those about GenAI, all, or none.
        spool: Folder for requests that wait for the receiver; None: they wait in memory.
        spool_max_bytes: Disk space for these, of all processes together.
    """

    endpoint: str | None
    headers: Mapping[str, str] | None = field(repr=False)  # a key is among them
    protocol: Protocol
    content: ContentMode
    content_place: Place
    redact: Callable[[str], str] | None
    names: Names
    queue_capacity: int
    queue_capacity_bytes: int
    batch_size: int
    export_interval_s: float
    metric_interval_s: float
    retry_s: float
    flush_timeout_s: float
    max_characters: int
    foreign: Literal["genai", "all", "off"]
    spool: str | None = None
    spool_max_bytes: int = 0


class Runtime:
    """Where decorated functions put their spans, and where these get ids and a sampling decision.

    Attributes:
        epoch: Grows with every fork: what began before belongs to the parent process.
        process_id: Random, one per process: spans are numbered within it.
        random_bits: ``getrandbits`` of a generator of this process's own.
        keeps_all: No sampler need be asked where the parent, if any, is sampled.
    """

    def __init__(self, settings: Settings, resource: Resource, sampler: Sampler) -> None:
        self.settings = settings
        self.sampler = sampler
        self.keeps_all = sampler is ALWAYS_ON or sampler is DEFAULT_ON
        self.epoch = 0
        self._resource = resource
        self.renew()

    def renew(self) -> None:
        """Start afresh, as a forked child must: own queue, ids and numbers."""
        self.epoch += 1
        generator = random.Random(os.urandom(32))  # noqa: S311 - ids are no secrets
        self.random_bits = generator.getrandbits
        self.process_id = f"{generator.getrandbits(32):08x}"
        settings = self.settings
        self.buffer = Buffer(
            settings.queue_capacity, settings.queue_capacity_bytes, settings.batch_size
        )
        instance = self._resource.attributes.get(semconv.SERVICE_INSTANCE_ID)
        # Two processes under one instance id would mix up their cumulative metrics.
        if instance is None or self.epoch > 1:
            instance = f"{instance}-{self.process_id}" if instance else self.process_id
        self.resource = self._resource.merge(Resource({semconv.SERVICE_INSTANCE_ID: instance}))


active: Runtime | None = None
