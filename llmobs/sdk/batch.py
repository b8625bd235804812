"""Results of a provider's batch API: many answers that one call fetches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from llmobs.sdk.content import from_json
from llmobs.sdk.usage import Answer, Usage, read_answer

__all__ = ["Batch", "read_batch"]


@dataclass(slots=True)
class Batch:
    """What the results of a batch say together.

    Attributes:
        answer: One without messages, whose usage is the sum of all and whose model is that of the
            last.
        n_results: How many results there are.
    """

    answer: Answer = field(default_factory=Answer)
    n_results: int = 0

    def add(self, result: Any) -> None:
        """Add one result, of plain data, or a piece of a file of JSON lines."""
        whole = self.answer
        for one in _results([result]):
            self.n_results += 1
            answer = read_answer(_body(one))
            whole.model = answer.model or whole.model
            if answer.usage is not None:
                whole.usage = _sum([whole.usage or Usage(), answer.usage])


def read_batch(results: Any) -> Batch:
    """Add up what the results of a batch say.

    Args:
        results: Plain data: a list of results, an object that holds one, or the file of JSON
            lines. A result is OpenAI's (``response.body``), Anthropic's (``result.message``),
            or an answer itself; one that failed has no usage.
    """
    batch = Batch()
    for result in _results(results):
        batch.add(result)
    return batch


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
        of.name: [n for usage in usages if (n := getattr(usage, of.name)) is not None]
        for of in fields(Usage)
    }
    return Usage(**{name: sum(counts) for name, counts in said.items() if counts})
