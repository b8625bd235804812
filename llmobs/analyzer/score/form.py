"""Whether answers have the form that the request asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from llmobs.analyzer.score.base import ScoringInput, Target, Verdicts
from llmobs.analyzer.score.once import once_a_batch
from llmobs.measures.text import FORM_VERSION, json_faults
from llmobs.records import SpanBatch
from llmobs.semconv import GEN_AI_OUTPUT_TYPE, GEN_AI_REQUEST_CHOICE_COUNT

__all__ = ["Format", "wanted_schemas"]

# A JSON schema as OpenLLMetry and the Vercel AI SDK send it, and what OpenInference sends: all
# parameters of the request as JSON, the schema somewhere within.
_SCHEMAS: Final = ("gen_ai.request.structured_output_schema", "ai.schema")
_PARAMETERS: Final = "llm.invocation_parameters"


class Format:
    """Value: 1 where the answer is the JSON that was asked for, 0 where it isn't."""

    name: Final = "format"
    targets: Final[tuple[Target, ...]] = ("output",)
    version: Final = FORM_VERSION

    @once_a_batch
    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Read answers to requests for JSON; NaN where no form was asked for."""
        outputs = batch.distinct("output")
        wanted = wanted_schemas(batch.spans)
        asked = [
            i for i, row in enumerate(outputs.rows.tolist()) if row >= 0 and wanted[i] is not None
        ]
        pairs = [(outputs.texts[outputs.rows[i]], wanted[i] or "") for i in asked]
        different = list(dict.fromkeys(pairs))
        found = json_faults([text for text, _ in different], [schema for _, schema in different])
        faults = dict(zip(different, found, strict=True))
        cut_off = batch.spans.texts("finish_reason")

        values = np.full(len(batch.spans), np.nan)
        labels, explanations = [""] * len(values), [""] * len(values)
        for i, pair in zip(asked, pairs, strict=True):
            fault = faults[pair]
            values[i], labels[i] = (0.0, "fail") if fault else (1.0, "pass")
            if fault and cut_off[i] == "length":
                fault += "; the answer was cut off at its token limit"
            explanations[i] = fault
        return Verdicts(values, labels, explanations)


def wanted_schemas(spans: SpanBatch) -> list[str | None]:
    """Return the JSON schema that each answer must fit, as JSON.

    "" where any JSON will do, None where none was asked for, or where the text is not one whole
    answer: the model called a tool, or was asked for several answers.
    """
    wanted: list[str | None] = [
        "" if kind == "json" else None for kind in _texts(spans, GEN_AI_OUTPUT_TYPE)
    ]
    for i, parameters in enumerate(_texts(spans, _PARAMETERS)):
        # All that asks for JSON has the word; most requests ask for none, and are not parsed.
        if parameters is not None and "response_format" in parameters:
            asked = _response_format(parameters)
            wanted[i] = wanted[i] if asked is None else asked
    for key in _SCHEMAS:
        for i, schema in enumerate(_texts(spans, key)):
            wanted[i] = schema or wanted[i]
    choices = _lookup(spans, "attributes_n", GEN_AI_REQUEST_CHOICE_COUNT)
    reasons = spans.texts("finish_reason")
    return [
        None if reason == "tool_call" or (n is not None and n > 1) else schema
        for schema, reason, n in zip(wanted, reasons, choices, strict=True)
    ]


def _response_format(parameters: str) -> str | None:
    """Return the schema in a request's parameters; "" and None as in `wanted_schemas`."""
    try:
        form = json.loads(parameters)["response_format"]
        kind = form["type"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    if kind == "json_object":
        return ""
    if kind != "json_schema":
        return None
    described = form.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    return json.dumps(schema) if isinstance(schema, dict) else ""


def _texts(spans: SpanBatch, key: str) -> Sequence[str | None]:
    texts: list[str | None] = _lookup(spans, "attributes_s", key)
    return texts


def _lookup(spans: SpanBatch, column: str, key: str) -> list[Any]:
    """Return an attribute of every span, None where it has none."""
    found: list[Any] = pc.map_lookup(spans.table.column(column), key, "first").to_pylist()
    return found
