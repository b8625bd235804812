"""What the compiled loops read is what the readers in Python read."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmobs.analyzer.normalize import messages
from llmobs.analyzer.normalize.plain import read_plain

texts = st.text(st.characters(codec="utf-8"), max_size=90)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Compile once, outside of anybody's deadline."""
    read_plain(pa.array([""]), np.array([0]), is_answer=False)


def message(role: str, *contents: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text} for text in contents]}


written = st.sampled_from(
    [
        {"separators": (",", ":"), "ensure_ascii": False},
        {"separators": (",", ":"), "ensure_ascii": True},
        {"ensure_ascii": False},
        {"indent": 1},
    ]
)


def read(text: str, *, is_answer: bool) -> tuple[str, str] | None:
    """Read one text that stands between others; None when it is left."""
    rows = np.array([1, -1, 0, 1])
    plain = read_plain(pa.array(["[", text, "neighbour"]), rows, is_answer=is_answer)
    for column in (plain.texts, plain.system):
        column.validate(full=True)
        assert len(column) == len(rows)
        assert column[1].as_py() == column[2].as_py() == ""
        assert column[0] == column[3]
    left = plain.left.tolist()
    assert left in ([2], [0, 2, 3])
    return None if 0 in left else (plain.texts[0].as_py(), plain.system[0].as_py())


@settings(deadline=None)
@given(
    st.lists(
        st.builds(message, st.sampled_from(["system", "user", "assistant", "tool"]), texts),
        max_size=3,
    ),
    written,
)
def test_whatever_is_read_is_what_python_reads(
    sent: list[dict[str, Any]], how: dict[str, Any]
) -> None:
    text = json.dumps(sent, **how)
    canonical = messages.read_canonical(text)
    assert canonical is not None
    user, system, context = messages.input_texts(canonical)
    assert read(text, is_answer=False) in (None, (user, system))
    assert not context or read(text, is_answer=False) is None
    assert read(text, is_answer=True) in (None, (messages.output_text(canonical), ""))


@settings(deadline=None)
@given(texts, texts, written)
def test_the_commonest_input_is_read(system: str, user: str, how: dict[str, Any]) -> None:
    both = json.dumps([message("system", system), message("user", user)], **how)
    alone = json.dumps([message("user", user)], **how)
    is_usual = "indent" not in how
    assert read(both, is_answer=False) == ((user, system) if is_usual else None)
    assert read(alone, is_answer=False) == ((user, "") if is_usual else None)


@settings(deadline=None)
@given(texts, st.sampled_from([{}, {"finish_reason": "stop"}]), written)
def test_the_commonest_answer_is_read(
    answer: str, more: dict[str, str], how: dict[str, Any]
) -> None:
    text = json.dumps([message("assistant", answer) | more], **how)
    assert read(text, is_answer=True) == (None if "indent" in how else (answer, ""))


@pytest.mark.parametrize(
    "inside", ["\\", "\\x41", "\\ud83", "\\ud83d", "\\udc00\\ud83d", "a\nb", '"']
)
def test_broken_json_and_half_characters_are_left(inside: str) -> None:
    text = '[{"role":"user","parts":[{"type":"text","content":"' + inside + '"}]}]'
    assert read(text, is_answer=False) is None


def test_every_cut_is_left() -> None:
    whole = json.dumps([message("system", "é\U0001f600\n" * 9), message("user", "x" * 70)])
    assert read(whole, is_answer=False) == ("x" * 70, "é\U0001f600\n" * 9)
    for end in range(len(whole)):
        assert read(whole[:end], is_answer=False) is None


def test_a_column_that_begins_in_the_middle_of_its_buffer_is_read() -> None:
    column = pa.array(["zero", json.dumps([message("user", "hi")])]).slice(1)
    plain = read_plain(column, np.array([0]), is_answer=False)
    assert plain.texts.to_pylist() == ["hi"]


def test_mutated_messages_are_left_or_read_as_python_reads_them() -> None:
    rnd = random.Random(20261124)
    wholes = [
        json.dumps([message("system", "a\n\u00e9 \U0001f600"), message("user", 'say "hi"')]),
        json.dumps([{**message("user", "hi"), "name": None}], ensure_ascii=False),
        json.dumps([{**message("assistant", "yes \\ no"), "finish_reason": "stop"}]),
        '[{"role":"user","parts":[{"content":"order first","type":"text"}]}]',
    ]
    n_read = n_left = 0
    for i in range(6000):
        text = list(wholes[i % len(wholes)])
        for _ in range(rnd.choice((0, 1, 1, 2))):
            at = rnd.randrange(len(text))
            match rnd.randrange(3):
                case 0:
                    text[at] = rnd.choice('"\\{}[]:, abu0\x01\x7f\u00e9')
                case 1:
                    del text[at]
                case _:
                    text.insert(at, rnd.choice('"\\{}[]:, nu\U0001f600'))
        sent = "".join(text)
        for is_answer in (False, True):
            got = read(sent, is_answer=is_answer)
            if got is None:
                n_left += 1
                continue
            n_read += 1
            canonical = messages.read_canonical(sent)
            assert canonical is not None, sent
            if is_answer:
                assert got == (messages.output_text(canonical), ""), sent
            else:
                assert got == messages.input_texts(canonical)[:2], sent
    assert n_read > 1000
    assert n_left > 1000
