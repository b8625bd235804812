"""The monitors that every place gets without a line of settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = [
    "LANGUAGE",
    "MEANS",
    "N_MONITORS",
    "OUTPUT_EMBEDDING",
    "RATES",
    "TOPIC",
    "CategorySpec",
    "Kind",
    "MeanSpec",
    "RateSpec",
    "Spec",
    "WitnessSpec",
]

Kind: TypeAlias = Literal["input", "output", "model", "security", "cost", "reliability"]


@dataclass(frozen=True, slots=True)
class MeanSpec:
    """A mean over sessions.

    Attributes:
        name: The monitor.
        what: Its statistic in words.
        unit: Unit in which people read it.
        gate: Shifts up to this many standard deviations of a session are no change.
        is_log: Logs are compared, so that factors count; people read the geometric mean.
        is_sum: A session's value is the sum over its calls, else their mean.
        given_input: Compared with the answers to inputs of the same topic.
        better: Where a move is good news: it is shown, and announced to nobody.
    """

    name: str
    kind: Kind
    what: str
    unit: str
    gate: float
    is_log: bool = True
    is_sum: bool = False
    given_input: bool = False
    better: Literal["lower", "higher", "nowhere"] = "nowhere"


@dataclass(frozen=True, slots=True)
class RateSpec:
    """A share of sessions with at least one positive call.

    Attributes:
        name: The monitor.
        what: "sessions with …" in words.
        score: Name and target of the score column whose label ``fail`` is positive; None:
            a call that failed is.
        floor: A reference share below this counts as this.
    """

    name: str
    kind: Kind
    what: str
    score: tuple[str, str] | None
    floor: float
    unit: str = "share of sessions"


@dataclass(frozen=True, slots=True)
class CategorySpec:
    """Shares of categories among the first calls of sessions."""

    name: str
    kind: Kind
    what: str
    unit: str = "share of sessions"


@dataclass(frozen=True, slots=True)
class WitnessSpec:
    """The mean of vectors."""

    name: str
    kind: Kind
    what: str
    gate: float
    unit: str = "standard deviations"


Spec: TypeAlias = MeanSpec | RateSpec | CategorySpec | WitnessSpec

TOPIC: Final = CategorySpec("input.topic", "input", "topics")
LANGUAGE: Final = CategorySpec("input.language", "input", "languages")
OUTPUT_EMBEDDING: Final = WitnessSpec("output.embedding", "model", "answers", gate=0.1)

# Gates: the smallest change worth waking somebody for, in standard deviations of a session.
# Latency wanders with the provider's load; the rest hardly moves while nothing changes.
MEANS: Final = (
    MeanSpec("input.length", "input", "prompt length", "tokens", 0.1),
    MeanSpec("output.length", "model", "answer length", "tokens", 0.1, given_input=True),
    MeanSpec(
        "output.relevance",
        "output",
        "relevance of answers",
        "score",
        0.1,
        is_log=False,
        better="higher",
    ),
    MeanSpec("calls.latency", "reliability", "duration of a call", "s", 0.25, better="lower"),
    MeanSpec("session.cost", "cost", "cost of a session", "USD", 0.1, is_sum=True, better="lower"),
)
# Floors: one odd session after a spotless reference is no wave. Attacks are rarer than slips.
RATES: Final = (
    RateSpec("output.toxicity", "output", "a toxic answer", ("toxicity", "output"), 0.005),
    RateSpec("output.refusal", "output", "a refused answer", ("refusal", "output"), 0.005),
    RateSpec("input.injection", "security", "an injection attempt", ("injection", "input"), 0.005),
    RateSpec("input.pii", "security", "personal data in the input", ("pii", "input"), 0.005),
    RateSpec("calls.errors", "reliability", "a failed call", None, 0.005),
)
N_MONITORS: Final = len(MEANS) + len(RATES) + 3
