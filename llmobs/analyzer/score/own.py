"""Scorers of one's own: a function of a text becomes a column."""

from __future__ import annotations

import hashlib
import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, get_args, overload

import numpy as np
import numpy.typing as npt

from llmobs.analyzer.score.base import ScoringInput, Target, Verdicts
from llmobs.analyzer.score.pairs import distinct_pairs
from llmobs.analyzer.score.verdicts import spread
from llmobs.errors import ConfigurationError

__all__ = ["NAME", "FunctionScorer", "Verdict", "scorer"]

NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
"""What a scorer may be called: the name is a label of metrics."""


class Verdict(NamedTuple):
    """What a function says about one text, where a number alone is too little.

    Attributes:
        value: The score; None: nothing to say.
        label: ``pass``, ``fail`` or a category; "": what the scorer's rule says of the value.
        explanation: One short sentence. Never a text's own words.
    """

    value: float | bool | None
    label: str = ""
    explanation: str = ""


Answer: TypeAlias = float | bool | Verdict | None
"""A number, a check that holds or doesn't (1: pass, 0: fail), or None: nothing to say."""

Labeller: TypeAlias = Callable[[float], str]


@dataclass(frozen=True)
class FunctionScorer:
    """A function as a `Scorer`; called, it is the function still.

    Each different text (or pair of texts) of a batch is judged once.

    Attributes:
        function: Takes a text, or question and answer for ``pair``; of a batch, lists of them.
        name: What is measured.
        version: Changes whenever the same text could get another score.
        targets: What is judged: ``pair`` alone, or any of ``input`` and ``output``.
        is_batch: Whether the function takes lists and returns as many answers.
        label: From a value to its label.
    """

    function: Callable[..., Any]
    name: str
    version: str
    targets: tuple[Target, ...]
    is_batch: bool
    label: Labeller

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def score(self, batch: ScoringInput, target: Target) -> Verdicts:
        """Judge every different text once.

        Raises:
            ValueError: The function returned another number of answers than it got texts.
            Exception: Whatever the function raises.
        """
        texts, rows = _pairs(batch) if target == "pair" else _texts(batch, target)
        verdicts = [self._verdict(answer) for answer in self._answers(texts)]
        return spread(
            rows,
            np.array([verdict.value for verdict in verdicts], np.float64),
            [verdict.label for verdict in verdicts],
            [verdict.explanation for verdict in verdicts],
        )

    def _answers(self, texts: Sequence[tuple[str, ...]]) -> Sequence[Answer]:
        if not texts:
            return ()
        if not self.is_batch:
            return [self.function(*each) for each in texts]
        answers: Sequence[Answer] = list(self.function(*map(list, zip(*texts, strict=True))))
        if len(answers) != len(texts):
            raise ValueError(f"{self.name}: {len(answers)} answers for {len(texts)} texts")
        return answers

    def _verdict(self, answer: Answer) -> Verdict:
        """Return an answer of any kind as number, label and explanation."""
        given = answer if isinstance(answer, Verdict) else Verdict(answer)
        value = np.nan if given.value is None else float(given.value)
        if np.isnan(value):
            return Verdict(np.nan)
        if given.label:
            return Verdict(value, given.label, given.explanation)
        if isinstance(given.value, bool | np.bool_):
            return Verdict(value, "pass" if value else "fail", given.explanation)
        return Verdict(value, self.label(value), given.explanation)


@overload
def scorer(function: Callable[..., Any], /) -> FunctionScorer: ...
@overload
def scorer(
    *,
    name: str | None = None,
    target: Target | Sequence[Target] = "output",
    version: str | None = None,
    batch: bool = False,
    fail_from: float | None = None,
    fail_below: float | None = None,
    label: Labeller | None = None,
) -> Callable[[Callable[..., Any]], FunctionScorer]: ...
def scorer(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    target: Target | Sequence[Target] = "output",
    version: str | None = None,
    batch: bool = False,
    fail_from: float | None = None,
    fail_below: float | None = None,
    label: Labeller | None = None,
) -> FunctionScorer | Callable[[Callable[..., Any]], FunctionScorer]:
    """Make a scorer of a function from a text to a number, a check, a `Verdict` or None.

    Args:
        function: The function, where the decorator is used without arguments.
        name: What is measured; by default the function's name.
        target: What is judged: ``output``, ``input``, both, or ``pair`` (question and answer).
        version: Changes whenever the same text could get another score; by default made of
            the function's source, which does not see what the function calls.
        batch: The function takes lists (one, or two for ``pair``) and returns as many answers.
        fail_from: The label is ``fail`` from this value on, else ``pass``.
        fail_below: The label is ``fail`` below this value, else ``pass``.
        label: Gives the label of a value. Without any of the three a number has no label.

    Raises:
        ConfigurationError: A name, target or version that can't be, or two rules for the label.
    """
    targets = _checked_targets(target)
    rule = _rule(fail_from, fail_below, label)

    def make(function: Callable[..., Any]) -> FunctionScorer:
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"scorer {function.__name__!r} is async; a scorer is a plain function"
            )
        return FunctionScorer(
            function,
            _checked_name(name or function.__name__),
            version or _source_version(function),
            targets,
            batch,
            rule,
        )

    return make if function is None else make(function)


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"a scorer can't be called {name!r}; use a-z, 0-9, '_', '.' and '-', 64 at most"
        )
    return name


def _checked_targets(target: Target | Sequence[Target]) -> tuple[Target, ...]:
    targets: tuple[Any, ...] = (target,) if isinstance(target, str) else tuple(target)
    if not targets or len(set(targets)) < len(targets) or not {*targets} <= {*get_args(Target)}:
        raise ConfigurationError(f"target {target!r}; known: {', '.join(get_args(Target))}")
    if "pair" in targets and len(targets) > 1:
        raise ConfigurationError("a scorer of pairs takes two texts and has no other target")
    return targets


def _rule(fail_from: float | None, fail_below: float | None, label: Labeller | None) -> Labeller:
    if (fail_from, fail_below, label).count(None) < 2:
        raise ConfigurationError("one rule makes the label: fail_from, fail_below or label")
    if fail_from is not None:
        return lambda value: "fail" if value >= fail_from else "pass"
    if fail_below is not None:
        return lambda value: "fail" if value < fail_below else "pass"
    return label or (lambda _: "")


def _source_version(function: Callable[..., Any]) -> str:
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise ConfigurationError(
            f"the source of {function.__name__!r} can't be read; give the scorer a version"
        ) from error
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def _texts(
    batch: ScoringInput, target: Target
) -> tuple[list[tuple[str, ...]], npt.NDArray[np.int64]]:
    distinct = batch.distinct("input" if target == "input" else "output")
    return [(text,) for text in distinct.texts], distinct.rows


def _pairs(batch: ScoringInput) -> tuple[list[tuple[str, ...]], npt.NDArray[np.int64]]:
    """Return the different pairs of question and answer, and which of them each span has."""
    inputs, outputs = batch.distinct("input"), batch.distinct("output")
    pairs = distinct_pairs(inputs, outputs)
    texts: list[tuple[str, ...]] = [
        (inputs.texts[asked], outputs.texts[answered])
        for asked, answered in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    ]
    return texts, pairs.rows
