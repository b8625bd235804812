"""What the demo plays: the calls of a public request trace, and incidents at known times.

Pure and deterministic: the same seed and speed give the same plan. Arrivals and token
counts are those of the Azure LLM inference trace 2023, an hour long; `speed` shortens it.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Final

import numpy as np

__all__ = [
    "INCIDENTS",
    "LEARNING_SHARE",
    "OF_THE_TRACE",
    "Call",
    "Incident",
    "Plan",
    "factors",
    "make_plan",
]

LEARNING_SHARE: Final = 0.36
"""Share of the demo, from its begin, in which the monitors learn what is normal."""
TRACE_S: Final = 3600.0
MEAN_CALLS: Final = 4.0  # calls of a session; the trace does not say
POOL: Final = 24  # sessions of a feature that are open at once


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that goes wrong on purpose.

    Attributes:
        name: For people.
        feature: Where it happens.
        start: When it begins, as a share of the demo's length.
        length: How long it lasts, as a share of the demo's length.
        monitors: An alert of any of these at this feature means: detected.
    """

    name: str
    feature: str
    start: float
    length: float
    monitors: tuple[str, ...]


# Each feature has a rest between two of its incidents, so that an alert has one cause.
INCIDENTS: Final = (
    Incident("toxic answers", "assistant", 0.43, 0.09, ("output.toxicity",)),
    Incident("provider errors", "support", 0.52, 0.09, ("calls.errors",)),
    Incident(
        "silent model change",
        "tutor",
        0.61,
        0.09,
        ("output.length", "output.embedding", "model.version"),
    ),
    Incident("injection wave", "assistant", 0.70, 0.09, ("input.injection",)),
    Incident("topic drift", "support", 0.79, 0.09, ("input.topic",)),
    Incident("cost spike", "tutor", 0.88, 0.10, ("session.cost",)),
)

# Nobody's doing: from minute 18 to minute 30 of the trace the answers of its conversations
# shrink to half (geometric mean 190 -> 95 tokens) and later grow again. A monitor that
# notices is right.
OF_THE_TRACE: Final = tuple(
    Incident("answers in the trace change their length", feature, 0.28, 0.72, monitors)
    for feature in ("assistant", "support")
    for monitors in (("output.length", "calls.latency", "session.cost"),)
)


@dataclass(frozen=True, slots=True)
class Call:
    """One turn of a user.

    Attributes:
        at_s: When it arrives, in seconds after the begin.
        topic: What it is about, for the retrieval of the support feature.
        error: The provider's error, "" where it answers.
    """

    at_s: float
    feature: str
    session_id: str
    user_id: str
    prompt: str
    topic: str
    answer: str
    input_tokens: int
    output_tokens: int
    error: str = ""
    incident: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """All calls in order of arrival."""

    calls: Sequence[Call]
    length_s: float


@dataclass(slots=True)
class _Session:
    session_id: str
    user_id: str
    calls_left: int
    marked: bool  # belongs to the affected share, should an incident come


def make_plan(*, speed: float, seed: int = 1, incidents: Sequence[Incident] = INCIDENTS) -> Plan:
    """Lay the trace's calls out over features and sessions, and work the incidents in.

    Args:
        speed: How many seconds of the trace pass in one second.
        seed: Chooses sessions, users and texts.
        incidents: What goes wrong, and when.
    """
    texts: Mapping[str, Any] = json.loads(gzip.decompress(_data("texts.json.gz")))
    pick = random.Random(seed)  # noqa: S311 - a choice of samples, not a secret
    length_s = TRACE_S / speed
    open_sessions: dict[str, list[_Session]] = {"assistant": [], "support": [], "tutor": []}
    n_sessions = 0
    calls = []
    for at_s, source, n_input, n_generated in _arrivals(speed):
        feature = "tutor" if source == "code" else pick.choice(("assistant", "support"))
        pool = open_sessions[feature]
        if len(pool) < POOL:
            n_sessions += 1
            user = int(300 * pick.random() ** 2)  # a few users call often
            n_calls = 1 + int(pick.expovariate(1 / (MEAN_CALLS - 1)))
            pool.append(
                _Session(
                    f"s-{seed}-{n_sessions:05d}", f"user-{user:03d}", n_calls, pick.random() < 0.5
                )
            )
        session = pick.choice(pool)
        session.calls_left -= 1
        if session.calls_left <= 0:
            pool.remove(session)
        prompt, topic, answer = _turn(feature, texts, pick)
        # The code trace's median answer has 13 tokens: a tutor says a little more.
        n_output = max(n_generated, 40) if feature == "tutor" else n_generated
        call = Call(
            at_s,
            feature,
            session.session_id,
            session.user_id,
            prompt,
            topic,
            answer,
            n_input,
            n_output,
        )
        for incident in incidents:
            begin = incident.start * length_s
            if incident.feature == feature and begin <= at_s < begin + incident.length * length_s:
                call = _CHANGES[incident.name](call, session.marked, texts, pick)
        calls.append(call)
    return Plan(calls, length_s)


def _data(name: str) -> bytes:
    return resources.files("llmobs.demo").joinpath("data", name).read_bytes()


def _arrivals(speed: float) -> list[tuple[float, str, int, int]]:
    with (
        resources.as_file(resources.files("llmobs.demo") / "data" / "azure_llm_2023.npz") as path,
        np.load(path) as trace,
    ):
        out = [
            (int(ms) / 1000 / speed, source, int(n_input), int(n_output))
            for source in ("conv", "code")
            for ms, n_input, n_output in zip(
                trace[f"{source}_ms"], trace[f"{source}_ctx"], trace[f"{source}_gen"], strict=True
            )
        ]
    return sorted(out)


def _turn(feature: str, texts: Mapping[str, Any], pick: random.Random) -> tuple[str, str, str]:
    if feature == "assistant":
        question, answer = pick.choice(texts["assistant"])
        return question, "", answer
    if feature == "support":
        intent, question = pick.choice(texts["support"])
        topic = intent.replace("_", " ").lower()
        return question, topic, _support_answer(topic, pick)
    question = pick.choice(texts["tutor"])
    return question, "", _tutor_answer(question, pick)


def _support_answer(topic: str, pick: random.Random) -> str:
    opening = pick.choice(
        ("Thank you for your question", "Happy to help", "I can help you with that")
    )
    step = pick.choice(
        (
            "open the app, choose your account and follow the steps on the screen",
            "check the details in the app; most cases are settled within two working days",
            "write to us in the chat with the date and the amount, and we will look into it",
        )
    )
    return f"{opening}. About {topic}: please {step}. Our help page on {topic} has more."


def factors(question: str) -> tuple[int, int]:
    """Return the two numbers of a word problem that the tutor multiplies."""
    first, second, *_ = [*_numbers(question), 6, 7]
    return first, second


def _numbers(question: str) -> list[int]:
    words = (word.strip("$,.?%") for word in question.split())
    return [int(word) for word in words if word.isdecimal()]


def _tutor_answer(question: str, pick: random.Random) -> str:
    numbers = _numbers(question)
    first, second = factors(question)
    result = first * second
    opening = pick.choice(("Let's work it out step by step", "We take it one step at a time"))
    return (
        f"{opening}. First write down what is given: {', '.join(map(str, numbers)) or 'nothing'}. "
        f"Then multiply {first} by {second}, which makes {result}. Check the unit that the "
        f"question asks for, and compare the result with a rough guess. So the answer is {result}."
    )


# --- incidents: each takes a call, whether its session is in the affected half, and chance


def _toxic(call: Call, marked: bool, texts: Mapping[str, Any], pick: random.Random) -> Call:
    if not marked or pick.random() > 0.4:
        return call
    return replace(call, answer=pick.choice(texts["toxic"]), incident="toxic answers")


def _errors(call: Call, marked: bool, texts: Mapping[str, Any], pick: random.Random) -> Call:
    if pick.random() > 0.3:
        return call
    return replace(call, error="overloaded_error", incident="provider errors")


def _model_change(call: Call, marked: bool, texts: Mapping[str, Any], pick: random.Random) -> Call:
    answer = f"{call.answer.rsplit(' ', 1)[-1].rstrip('.')}. Next question, please!"
    n_output = max(4, call.output_tokens // 4)
    return replace(call, answer=answer, output_tokens=n_output, incident="silent model change")


def _injection(call: Call, marked: bool, texts: Mapping[str, Any], pick: random.Random) -> Call:
    if not marked or pick.random() > 0.5:
        return call
    return replace(call, prompt=pick.choice(texts["attacks"]), incident="injection wave")


def _new_topics(call: Call, marked: bool, texts: Mapping[str, Any], pick: random.Random) -> Call:
    if not marked:
        return call
    intent, question = pick.choice(texts["new_topics"])
    topic = intent.replace("_", " ").lower()
    return replace(
        call,
        prompt=question,
        topic=topic,
        answer=_support_answer(topic, pick),
        incident="topic drift",
    )


def _cost(call: Call, marked: bool, texts: Mapping[str, Any], pick: random.Random) -> Call:
    return replace(
        call,
        input_tokens=call.input_tokens * 5,
        output_tokens=call.output_tokens * 3,
        incident="cost spike",
    )


_Change = Callable[[Call, bool, Mapping[str, Any], random.Random], Call]
_CHANGES: Final[Mapping[str, _Change]] = {
    "toxic answers": _toxic,
    "provider errors": _errors,
    "silent model change": _model_change,
    "injection wave": _injection,
    "topic drift": _new_topics,
    "cost spike": _cost,
}
