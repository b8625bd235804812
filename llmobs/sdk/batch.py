"""Results of a provider's batch API: many answers that one call fetches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from llmobs.sdk.content import from_json
from llmobs.sdk.usage import Answer, Usage, read_answer

__all__ = ["read_batch"]


def read_batch(results: Any) -> tuple[Answer, int]:
    """Add up what the results of a batch say.

    Args:
        results: Plain data: a list of results, an object that holds one, or the file of JSON
            lines. A result is OpenAI's (``response.body``), Anthropic's (``result.message``),
            or an answer itself; one that failed has no usage.

    Returns:
        An answer without messages, whose usage is the sum of all and whose model is that of the
        last; and how many results there are.
    """
    whole = Answer()
    n_results = 0
    for result in _results(results):
        n_results += 1
        answer = read_answer(_body(result))
        whole.model = answer.model or whole.model
        if answer.usage is not None:
            whole.usage = _sum([whole.usage or Usage(), answer.usage])
    return whole, n_results


def _results(value: Any) -> Iterator[Any]:
    if isinstance(value, str):
        yield from (from_json(line) for line in value.splitlines() if line.strip())
    elif isinstance(value, dict):
        held = next((value[n] for n in ("results", "data", "responses") if n in value), [value])
        yield from held if isinstance(held, list) else [held]
    elif isinstance(value, (list, tuple)):
        for item in value:  # chunks of a file, or results
            yield from _results(item) if isinstance(item, str) else [item]


def _body(result: Any) -> Any:
    if not isinstance(result, dict):
        return None
    outer = result.get("response", result.get("result"))
    if not isinstance(outer, dict):
        return None if "custom_id" in result else result
    return outer.get("body", outer.get("message"))


def _sum(usages: Sequence[Usage]) -> Usage:
    said = {
        field.name: [n for usage in usages if (n := getattr(usage, field.name)) is not None]
        for field in fields(Usage)
    }
    return Usage(**{name: sum(counts) for name, counts in said.items() if counts})
