"""The texts of spans: what was asked, what was answered, and the messages they came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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
from llmobs.analyzer.normalize.plain import read_plain

__all__ = ["Content", "content", "read_inputs", "read_outputs"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Vercel sends the parts of an answer as attributes of their own.
_VERCEL_TEXT, _VERCEL_CALLS, _VERCEL_REASONING = (
    "ai.response.text",
    "ai.response.toolCalls",
    "ai.response.reasoning",
)


_NUMBERED = re.compile(r"[0-9]{1,9}(?:\.|$)")


COLUMNS: Final = (
    "input_text", "output_text", "system_text", "context_text", "input_messages", "output_messages",
)  # fmt: skip


class Content:
    """The text columns of n spans: what compiled loops have read, and what Python has on top."""

    def __init__(self, n: int) -> None:
        self._columns = {name: pa.repeat("", n) for name in COLUMNS}
        self._texts: dict[str, dict[int, str]] = {name: {} for name in COLUMNS}

    def put_column(self, name: str, texts: pa.StringArray, mask: Mask) -> None:
        """Set a column of the spans in a mask; what is `put` stays on top."""
        if not mask.any():
            return
        if not mask.all():
            texts = pc.if_else(pa.array(mask), texts, self._columns[name])
        self._columns[name] = texts

    def put(self, i: int, **texts: str) -> None:
        """Set columns of one span."""
        for name, text in texts.items():
            self._texts[name][i] = text

    def text(self, name: str, i: int) -> str:
        """Return one text, "" where there is none."""
        above = self._texts[name].get(i)
        return self._columns[name][i].as_py() if above is None else above

    def columns(self) -> dict[str, pa.Array]:
        """Return the columns as Arrow arrays."""
        return {name: _over(self._columns[name], self._texts[name]) for name in COLUMNS}


def _over(column: pa.StringArray, texts: Mapping[int, str]) -> pa.StringArray:
    """Return a column with some texts replaced."""
    if not texts:
        return column
    mask = np.zeros(len(column), np.bool_)
    mask[list(texts)] = True
    return pc.replace_with_mask(column, mask, text_array([texts[i] for i in sorted(texts)]))


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
    is_embedding = np.array([name == semconv.OPERATION_EMBEDDINGS for name in operations], np.bool_)
    _tools(attributes, dialects, is_tool, out)
    _inputs(attributes, dialects, ~is_tool, out)
    _rows(attributes, CALL_OUTPUTS, dialects, is_embedding)  # vectors, for nobody to read
    _outputs(attributes, dialects, ~is_tool & ~is_embedding, out)
    _flattened(attributes, ~is_tool, out)
    _instructions(attributes, out)
    _documents(attributes, operations, out)
    return out


def _rows(
    attributes: Attributes, sources: Sequence[Source], dialects: npt.NDArray[np.uint8], mask: Mask
) -> Rows:
    """Return for each span the row of the first source that it has, -1 for none; mark it used."""
    if not mask.any():
        return np.full(len(mask), -1, np.int64)
    rows, _ = attributes.first(sources, dialects)
    rows = np.where(mask, rows, -1)
    attributes.use(rows)
    return rows


def _tools(
    attributes: Attributes, dialects: npt.NDArray[np.uint8], is_tool: Mask, out: Content
) -> None:
    if not is_tool.any():
        return
    for name, sources in (("input_text", TOOL_INPUTS), ("output_text", TOOL_OUTPUTS)):
        rows = _rows(attributes, sources, dialects, is_tool)
        texts = attributes.texts(rows)
        out.put_column(name, texts, is_tool)
        for i in np.flatnonzero(pc.starts_with(texts, '"')).tolist():
            out.put(i, **{name: messages.unquoted(texts[i].as_py())})


def _inputs(
    attributes: Attributes, dialects: npt.NDArray[np.uint8], mask: Mask, out: Content
) -> None:
    rows = _rows(attributes, CALL_INPUTS, dialects, mask)
    read_inputs(*attributes.texts_in_place(rows), out)


def _outputs(
    attributes: Attributes, dialects: npt.NDArray[np.uint8], mask: Mask, out: Content
) -> None:
    rows = _rows(attributes, CALL_OUTPUTS, dialects, mask)
    read_outputs(*attributes.texts_in_place(rows), out)
    _vercel_parts(attributes, mask, out)


def read_inputs(texts: pa.StringArray, rows: Rows, out: Content) -> None:
    """Read what calls were given.

    Args:
        texts: Messages in anybody's shape, as JSON or plain.
        rows: Which of them each span has, -1 for none.
        out: Gets the columns of the spans that have one.
    """
    # One user text, and no more: the texts say it all, and half the disk is saved.
    plain = read_plain(texts, rows, is_answer=False)
    out.put_column("input_text", plain.texts, rows >= 0)
    out.put_column("system_text", plain.system, rows >= 0)
    for i in plain.left.tolist():
        read, kept = _messages(texts[int(rows[i])].as_py(), "user")
        _put_input(out, i, read, kept)


def read_outputs(texts: pa.StringArray, rows: Rows, out: Content) -> None:
    """Read what calls were answered; arguments as those of `read_inputs`."""
    plain = read_plain(texts, rows, is_answer=True)
    out.put_column("output_text", plain.texts, rows >= 0)
    for i in plain.left.tolist():
        read, kept = _messages(texts[int(rows[i])].as_py(), "assistant")
        _put_output(out, i, read, kept)


def _messages(text: str, role: str) -> tuple[list[messages.Message], str]:
    """Return messages in anybody's shape, and their JSON in that of the conventions."""
    read = messages.read_canonical(text)
    if read is not None:
        return read, text
    read = messages.canonical(text, role)
    return read, messages.dumps(read)


def _put_input(out: Content, i: int, read: list[messages.Message], kept: str) -> None:
    user, system, context = messages.input_texts(read)
    kept = "" if messages.are_plain(read, ("system", "user")) else kept
    out.put(i, input_messages=kept, input_text=user, system_text=system, context_text=context)


def _put_output(out: Content, i: int, read: list[messages.Message], kept: str) -> None:
    kept = "" if messages.are_plain(read, ("assistant",)) else kept
    out.put(i, output_text=messages.output_text(read), output_messages=kept)


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
        if text := out.text("output_text", i):
            parts.append({"type": "text", "content": text})
        out.put(i, output_messages=messages.dumps([{"role": "assistant", "parts": parts}]))


def _reasoning(text: str) -> list[dict[str, Any]]:
    return [{"type": "reasoning", "content": text}] if text else []


def _calls(text: str) -> list[dict[str, Any]]:
    read = messages.canonical(f'{{"role":"assistant","tool_calls":{text or "[]"}}}', "assistant")
    return [part for message in read for part in message["parts"] if part["type"] == "tool_call"]


def _flattened(attributes: Attributes, mask: Mask, out: Content) -> None:
    """Read messages and documents that were flattened into numbered attributes."""
    # Keys are sorted so that the objects come in order whatever the order on the wire.
    flat = sorted(attributes.starting_with(_FLAT))
    for family in FAMILIES if flat else ():
        keys = [name for name in flat if name.startswith(family.prefix)]
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


_FLAT: Final = tuple(family.prefix for family in FAMILIES)


def _flat_input(out: Content, i: int, groups: list[dict[str, Any]]) -> None:
    read = [m for group in groups for m in messages.flattened_message(group, "user")]
    _put_input(out, i, read, messages.dumps(read))


def _flat_output(out: Content, i: int, groups: list[dict[str, Any]]) -> None:
    read = [m for group in groups for m in messages.flattened_message(group, "assistant")]
    _put_output(out, i, read, messages.dumps(read))


def _flat_documents(out: Content, i: int, groups: list[dict[str, Any]]) -> None:
    out.put(i, output_text="\n".join(filter(None, map(messages.document_text, groups))))


_FLATTENED: dict[str, Callable[[Content, int, list[dict[str, Any]]], None]] = {
    "input": _flat_input,
    "output": _flat_output,
    "documents": _flat_documents,
}


def _instructions(attributes: Attributes, out: Content) -> None:
    rows = attributes.rows_of(semconv.GEN_AI_SYSTEM_INSTRUCTIONS)
    for row, i in zip(rows.tolist(), attributes.owners(rows).tolist(), strict=True):
        out.put(i, system_text=messages.instructions_text(attributes.text(row)))
    attributes.use(rows)


def _documents(attributes: Attributes, operations: Sequence[str], out: Content) -> None:
    """Show retrieved documents as the answer of a retrieval, as context of any other call."""
    rows = attributes.rows_of(semconv.GEN_AI_RETRIEVAL_DOCUMENTS)
    for row, i in zip(rows.tolist(), attributes.owners(rows).tolist(), strict=True):
        text = messages.documents_text(attributes.text(row))
        if operations[i] == semconv.OPERATION_RETRIEVAL:
            out.put(i, output_text=text)
        else:
            before = out.text("context_text", i)
            out.put(i, context_text="\n".join(filter(None, (before, text))))
