"""Attributes of log records and data points, with those of their resource, as columns."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from llmobs import semconv
from llmobs.analyzer.decode.values import Value, read_value
from llmobs.records import VALUE_BOOL, VALUE_DOUBLE, VALUE_INT

__all__ = ["Attributes", "Origin"]

Attributes: TypeAlias = tuple[dict[str, str], dict[str, float]]
"""Text-valued ones, and numbers with booleans."""

_OLD_ENVIRONMENT = "deployment.environment"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a resource says about all that it sends."""

    service: str
    environment: str
    others: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def of(cls, resource: Resource) -> Origin:
        """Take service and environment out of the attributes of a resource."""
        values = {pair.key: read_value(pair.value) for pair in resource.attributes}
        service = values.pop(semconv.SERVICE_NAME, Value(0)).text
        old = values.pop(_OLD_ENVIRONMENT, Value(0)).text
        environment = values.pop(semconv.DEPLOYMENT_ENVIRONMENT_NAME, Value(0)).text or old
        return cls(service, environment, values)

    def attributes(self, own: Iterable[KeyValue]) -> Attributes:
        """Return attributes merged with the resource's; own ones win, of doubles the last one."""
        texts: dict[str, str] = {}
        numbers: dict[str, float] = {}
        values = dict(self.others)
        values.update((pair.key, read_value(pair.value)) for pair in own)
        for key, value in values.items():
            if value.kind in (VALUE_BOOL, VALUE_INT):
                numbers[key] = float(value.number)
            elif value.kind == VALUE_DOUBLE:
                numbers[key] = struct.unpack("<d", struct.pack("<q", value.number))[0]
            else:
                texts[key] = value.text
        return texts, numbers
