"""The texts of spans: what was asked, what was answered, and the messages they came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from llmobs import semconv
from llmobs.analyzer.normalize import messages
from llmobs.analyzer.normalize.attributes import Attributes, text_array
from llmobs.analyzer.normalize.mapping import (
    CALL_INPUTS,
    CALL_OUTPUTS,
    FAMILIES,
    TOOL_INPUTS,
    TOOL_OUTPUTS,
    Source,
)

__all__ = ["Content", "content"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Vercel sends the parts of an answer as attributes of their own.
_VERCEL_TEXT, _VERCEL_CALLS, _VERCEL_REASONING = (
    "ai.response.text",
    "ai.response.toolCalls",
    "ai.response.reasoning",
)


_NUMBERED = re.compile(r"[0-9]{1,9}(?:\.|$)")


@dataclass(slots=True)
class Content:
    """Six text columns as lists of n texts, "" where nothing was sent."""

    n: int
    input_text: list[str] = field(init=False)
    output_text: list[str] = field(init=False)
    system_text: list[str] = field(init=False)
    context_text: list[str] = field(init=False)
    input_messages: list[str] = field(init=False)
    output_messages: list[str] = field(init=False)

    def __post_init__(self) -> None:
        for name in self.__slots__[1:]:
            setattr(self, name, [""] * self.n)

    def columns(self) -> dict[str, pa.Array]:
        """Return the columns as Arrow arrays."""
        return {name: text_array(getattr(self, name)) for name in self.__slots__[1:]}


def content(
    attributes: Attributes, dialects: npt.NDArray[np.uint8], operations: Sequence[str]
) -> Content:
    """Collect the texts of every span.

    Args:
        attributes: Of the spans; what is read here is marked as used.
        dialects: Producer of each span.
        operations: ``gen_ai.operation.name`` of each span, normalized.
    """
    out = Content(attributes.n_spans)
    is_tool = np.array([name == semconv.OPERATION_EXECUTE_TOOL for name in operations], np.bool_)
    _tools(attributes, dialects, is_tool, out)
    _inputs(attributes, dialects, ~is_tool, out)
    _outputs(attributes, dialects, ~is_tool, out)
    _flattened(attributes, ~is_tool, out)
    _instructions(attributes, out)
    _documents(attributes, operations, out)
    return out


def _each(
    attributes: Attributes, sources: Sequence[Source], dialects: npt.NDArray[np.uint8], mask: Mask
) -> list[tuple[int, str]]:
    """Return span and text for each span that has one of the sources; mark them used."""
    rows, _ = attributes.first(sources, dialects)
    rows = np.where(mask, rows, -1)
    spans = np.flatnonzero(rows >= 0)
    if not len(spans):
        return []
    attributes.use(rows)
    texts = attributes.texts(rows[spans]).to_pylist()
    return list(zip(spans.tolist(), texts, strict=True))


def _tools(
    attributes: Attributes, dialects: npt.NDArray[np.uint8], is_tool: Mask, out: Content
) -> None:
    if not is_tool.any():
        return
    for i, text in _each(attributes, TOOL_INPUTS, dialects, is_tool):
        out.input_text[i] = messages.unquoted(text)
    for i, text in _each(attributes, TOOL_OUTPUTS, dialects, is_tool):
        out.output_text[i] = messages.unquoted(text)


def _inputs(
    attributes: Attributes, dialects: npt.NDArray[np.uint8], mask: Mask, out: Content
) -> None:
    for i, text in _each(attributes, CALL_INPUTS, dialects, mask):
        # One user text, and no more: the texts say it all, and half the disk is saved.
        texts = messages.quick_input(text)
        if texts is None:
            out.input_messages[i] = text
            read = messages.read_canonical(text)
            if read is None:
                read = messages.canonical(text, "user")
                out.input_messages[i] = messages.dumps(read) if read else ""
            texts = messages.input_texts(read)
        out.input_text[i], out.system_text[i], out.context_text[i] = texts


def _outputs(
    attributes: Attributes, dialects: npt.NDArray[np.uint8], mask: Mask, out: Content
) -> None:
    for i, text in _each(attributes, CALL_OUTPUTS, dialects, mask):
        answer = messages.quick_output(text)
        if answer is None:
            out.output_messages[i] = text
            read = messages.read_canonical(text)
            if read is None:
                read = messages.canonical(text, "assistant")
                out.output_messages[i] = messages.dumps(read) if read else ""
            answer = messages.output_text(read)
        out.output_text[i] = answer
    _vercel_parts(attributes, mask, out)


def _vercel_parts(attributes: Attributes, mask: Mask, out: Content) -> None:
    """Add the tool calls and the reasoning that stand beside ``ai.response.text``."""
    found: dict[int, list[dict[str, Any]]] = {}
    for key, make in ((_VERCEL_REASONING, _reasoning), (_VERCEL_CALLS, _calls)):
        rows = attributes.rows_of(key)
        rows = rows[mask[attributes.owners(rows)]]
        attributes.use(rows)
        for row, i in zip(rows.tolist(), attributes.owners(rows).tolist(), strict=True):
            found.setdefault(i, []).extend(make(attributes.text(row)))
    for i, parts in found.items():
        if out.output_text[i]:
            parts.append({"type": "text", "content": out.output_text[i]})
        out.output_messages[i] = messages.dumps([{"role": "assistant", "parts": parts}])


def _reasoning(text: str) -> list[dict[str, Any]]:
    return [{"type": "reasoning", "content": text}] if text else []


def _calls(text: str) -> list[dict[str, Any]]:
    read = messages.canonical(f'{{"role":"assistant","tool_calls":{text or "[]"}}}', "assistant")
    return [part for message in read for part in message["parts"] if part["type"] == "tool_call"]


def _flattened(attributes: Attributes, mask: Mask, out: Content) -> None:
    """Read messages and documents that were flattened into numbered attributes."""
    for family in FAMILIES:
        # Keys are sorted so that the objects come in order whatever the order on the wire.
        keys = sorted(name for name in attributes.names if name.startswith(family.prefix))
        found: dict[int, list[tuple[str, str]]] = {}
        for key in keys:
            path = key[len(family.prefix) :]
            if not _NUMBERED.match(path):
                continue
            rows = attributes.rows_of(key)
            rows = rows[mask[attributes.owners(rows)]]
            attributes.use(rows)
            for row, i in zip(rows.tolist(), attributes.owners(rows).tolist(), strict=True):
                found.setdefault(i, []).append((path, attributes.text(row)))
        for i, fields in found.items():
            _FLATTENED[family.target](out, i, messages.regroup(fields, family.inner))


def _flat_input(out: Content, i: int, groups: list[dict[str, Any]]) -> None:
    read = [m for group in groups for m in messages.flattened_message(group, "user")]
    out.input_messages[i] = messages.dumps(read)
    out.input_text[i], out.system_text[i], out.context_text[i] = messages.input_texts(read)


def _flat_output(out: Content, i: int, groups: list[dict[str, Any]]) -> None:
    read = [m for group in groups for m in messages.flattened_message(group, "assistant")]
    out.output_messages[i] = messages.dumps(read)
    out.output_text[i] = messages.output_text(read)


def _flat_documents(out: Content, i: int, groups: list[dict[str, Any]]) -> None:
    out.output_text[i] = "\n".join(filter(None, map(messages.document_text, groups)))


_FLATTENED: dict[str, Callable[[Content, int, list[dict[str, Any]]], None]] = {
    "input": _flat_input,
    "output": _flat_output,
    "documents": _flat_documents,
}


def _instructions(attributes: Attributes, out: Content) -> None:
    rows = attributes.rows_of(semconv.GEN_AI_SYSTEM_INSTRUCTIONS)
    for row, i in zip(rows.tolist(), attributes.owners(rows).tolist(), strict=True):
        out.system_text[i] = messages.instructions_text(attributes.text(row))
    attributes.use(rows)


def _documents(attributes: Attributes, operations: Sequence[str], out: Content) -> None:
    """Show retrieved documents as the answer of a retrieval, as context of any other call."""
    rows = attributes.rows_of(semconv.GEN_AI_RETRIEVAL_DOCUMENTS)
    for row, i in zip(rows.tolist(), attributes.owners(rows).tolist(), strict=True):
        text = messages.documents_text(attributes.text(row))
        if operations[i] == semconv.OPERATION_RETRIEVAL:
            out.output_text[i] = text
        else:
            out.context_text[i] = "\n".join(filter(None, (out.context_text[i], text)))
