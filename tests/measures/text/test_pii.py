from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmobs.measures.text import pii
from llmobs.measures.text.pii import PiiSpan, find, has_iban_remainder, has_luhn_digit
from llmobs.measures.text.train.corpora import Corpora

HELD_OUT = Corpora(Path(__file__).parent / "data", held_out=True)
KINDS = {
    "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS"
}  # fmt: skip


def found(text: str) -> list[tuple[str, str]]:
    return [(span.kind, text[span.start : span.end]) for span in pii([text])[0]]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("write to jane.doe+news@mail.example.co.uk.", "EMAIL_ADDRESS",
         "jane.doe+news@mail.example.co.uk"),
        ("card 4111 1111 1111 1111, exp 12/27", "CREDIT_CARD", "4111 1111 1111 1111"),
        ("amex 3782-822463-10005", "CREDIT_CARD", "3782-822463-10005"),
        ("my iban is gb82west12345698765432", "IBAN_CODE", "gb82west12345698765432"),
        ("pay to DE89 3704 0044 0532 0130 00 and thanks", "IBAN_CODE",
         "DE89 3704 0044 0532 0130 00"),
        ("my SSN is 536-90-4399", "US_SSN", "536-90-4399"),
        ("server 192.168.10.12 is down", "IP_ADDRESS", "192.168.10.12"),
        ("from 2001:db8:85a3::8a2e:370:7334", "IP_ADDRESS", "2001:db8:85a3::8a2e:370:7334"),
        ("call me at +44 20 7946 0958", "PHONE_NUMBER", "+44 20 7946 0958"),
        ("phone: (212) 555-0187", "PHONE_NUMBER", "(212) 555-0187"),
        ("you can call 33 93 31", "PHONE_NUMBER", "33 93 31"),
        ("my number is 5550187 ext. 2244", "PHONE_NUMBER", "5550187 ext. 2244"),
        ("fax:212\u2013555\u20130187", "PHONE_NUMBER", "212\u2013555\u20130187"),
        ("ping ::ffff:10.200.3.40 now", "IP_ADDRESS", "10.200.3.40"),
        ("key AKIAIOSFODNN7EXAMPLE here", "SECRET", "AKIAIOSFODNN7EXAMPLE"),
        ("password: hunter2-and-more", "SECRET", "hunter2-and-more"),
        ('{"api_key": "a1b2c3d4e5f6g7h8"}', "SECRET", "a1b2c3d4e5f6g7h8"),
    ],
)  # fmt: skip
def test_personal_data_is_found_where_it_stands(text: str, kind: str, value: str) -> None:
    assert found(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "order 4111111111111112 is late",  # wrong check digit
        "order 4111111111111111 is late",  # right by luck, but an order
        "DE89370400440532013001",  # wrong remainder
        "see part 536-90-4399 in the log",
        "version 1.2.3.4 of the driver",
        "std::vector and a::b::c",
        "at 14:58:18 on 2026-03-04T12:00:00Z",
        "the value 3.14159265358979",
        "it costs 1,234,567.89",
        "commit da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "my password is wrong",
        "user@main",
    ],
)
def test_look_alikes_are_left_alone(text: str) -> None:
    assert found(text) == []


def test_one_in_a_hundred_look_alikes_at_most_is_taken_for_personal_data() -> None:
    rng = random.Random(11)

    def digits(n: int) -> str:
        return "".join(rng.choice("0123456789") for _ in range(n))

    makers: tuple[Callable[[], str], ...] = (
        lambda: digits(10),
        lambda: f"1{digits(12)}",
        lambda: f"{digits(4)}-{digits(4)}",
        lambda: str(uuid.UUID(int=rng.getrandbits(128))),
        lambda: f"{rng.random() * 1000:.9f}",
        lambda: ".".join(str(rng.randint(0, 30)) for _ in range(4)),
        lambda: f"{rng.getrandbits(160):040x}",
        lambda: f"{digits(3)}-{digits(2)}-{digits(4)}",
    )
    sentences = ("Row {} of the report failed.", "Please look up {} in the log.", "Retry {}: ok")
    texts = [rng.choice(sentences).format(make()) for make in makers for _ in range(100)]
    assert sum(map(bool, pii(texts))) <= 8


def test_labelled_synthetic_persons_are_found() -> None:
    rows = HELD_OUT.rows("pii_presidio_generated")
    n_items = n_hit = n_spans = n_right = 0
    for row, spans in zip(rows, pii([row["text"] for row in rows]), strict=True):
        for start, end, kind in row["spans"]:
            if kind in KINDS:
                n_items += 1
                n_hit += any(s.kind == kind and s.start < end and start < s.end for s in spans)
        for span in spans:
            n_spans += 1
            n_right += any(span.start < end and start < span.end for start, end, _ in row["spans"])
    assert n_items > 30
    assert n_hit / n_items >= 0.95
    assert n_right / n_spans >= 0.95


def test_benign_prompts_hold_no_personal_data() -> None:
    assert sum(map(bool, pii([row["text"] for row in HELD_OUT.rows("benign_prompts")]))) <= 1


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("0123456789 -+().@:abcAKIA_=/\n"), max_size=120))
def test_spans_are_in_order_apart_and_inside_the_text(text: str) -> None:
    spans = pii([text])[0]
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(0 < span.confidence <= 1 for span in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))


PIECES = (
    "a@b.com", "x.y+z@mail.example.org", "@", "4111 1111 1111 1111", "3782-822463-10005", "12",
    "GB82 WEST 1234 5698 7654 32", "gb82west12345698765432", "NO9386011117947", "536-90-4399",
    "my SSN is", "192.168.10.12", "1.2.3.4.5", "2001:db8:85a3::8a2e:370:7334", "11:00:00", "::",
    "fe80:1::2:33", "+44 20 7946 0958", "(212) 555-0187", "call", "phone:", "my number is", "fax",
    "ext. 2244", "33 93 31", "5550187", "x12", "int 5", "доб. 12", "office", "whatsapp", "order",
    "tax", "AKIAIOSFODNN7EXAMPLE", "sk-aaaaaaaaaaaaaaaaaaaaaaaa", "ghp_" + "a1" * 20, "password",
    "eyJabcdefghij.eyJabcdefghij.abcdefghij", "api_key", "=", ": ", " is ", '"', "'", "asia", "7",
    "hunter2-and-more", "passwd: x1y2z3a4", "-----BEGIN RSA PRIVATE KEY-----", "1,234,567", "word",
    "-----BEGIN PRIVATE KEY", "https://a.b/9876543210", "2026-03-04 12:00:00", "3.14159265",
    "١٢٣٤٥٦٧٨٩", "\u212aey", "pa\u017f\u017fword", "\u2013", "\uff58", "\ud800", "😀", "東京",
    "\n", "\t", "  ", "/", "(", ")", ".", ",", "-", "_", "abc", "ß", "filler " * 12,
    "the quick brown fox jumps over the lazy dog " * 3,
)  # fmt: skip


def found_everywhere(text: str) -> list[PiiSpan]:
    """Ask every pattern about every character."""
    is_any = "@" in text or any(map(str.isdecimal, text)) or "-----BEGIN " in text
    return find(text) if is_any else []


@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=14),
    st.sampled_from(("", " ")),
)
def test_what_is_looked_at_holds_all_that_the_patterns_find(parts: list[str], glue: str) -> None:
    text = glue.join(parts)
    assert pii([text])[0] == found_everywhere(text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("0123456789 -+().@:abcAKIAx_=/\n\t"), max_size=150))
def test_of_signs_and_digits_all_is_looked_at(text: str) -> None:
    assert pii([text])[0] == found_everywhere(text)


@pytest.mark.parametrize(
    "text",
    [
        "call 1234 extension 5678",  # too few digits without the label between them
        "dial 33 93 31",  # the least a number has
        "from a:b::cc:d:1 on",  # the least an address has
        "ping 10.200.3.40",
        "password is 'abcdefg1'",  # the least a value has
        "NO9386011117947",  # the shortest IBAN
        "GB85ABCDEFGHIJKLMNOPQR",  # one of letters
        "eyJabcdefghij.eyJabcdefghij.abcdefghij 1",
        "call 212\u2013555\u20130187",
        "call ٠٧٩ ٤٦٠ ٩٥٨",
        "pa\u017f\u017fword = abcdefgh1",
    ],
)
def test_the_least_that_a_pattern_finds_is_looked_at(text: str) -> None:
    assert pii([text])[0] == find(text) != []


def test_a_letter_that_only_looks_like_one_has_no_place_in_an_account_number() -> None:
    assert found("GB82 WEST 1234 5698 7654 3\u212a") == []


def test_texts_do_not_reach_into_each_other() -> None:
    texts = [row["text"] for row in HELD_OUT.rows("pii_presidio_generated")]
    texts += ["call 415-555", "-2671 now", "a@", "b.com", ""]
    assert pii(texts) == [pii([text])[0] for text in texts]


def test_check_digits_follow_their_standards() -> None:
    assert has_luhn_digit("79927398713")  # the example of ISO/IEC 7812-1's formula in textbooks
    assert not has_luhn_digit("79927398714")
    assert has_iban_remainder("GB82 WEST 1234 5698 7654 32")
    assert not has_iban_remainder("GB83 WEST 1234 5698 7654 32")


@pytest.mark.parametrize("text", ["1" * 50_000, "a@" * 20_000, "1 " * 20_000, "a." * 20_000 + "@"])
def test_hostile_texts_take_no_longer_than_long_ones(text: str) -> None:
    pii([text])  # a pattern that backtracks would run into the test's time limit


@pytest.mark.parametrize("text", ["a@b.com ", "call 415-555-2671 ", "+1 415 555 2671 call "])
def test_a_long_text_takes_time_in_proportion(text: str) -> None:
    def cpu_s(n: int) -> float:
        start = time.process_time()
        assert len(pii([text * n])[0]) == n
        return time.process_time() - start

    cpu_s(100)
    # Eight times the text: eight times the time, and not 64 times.
    assert cpu_s(4000) < 25 * max(cpu_s(500), 0.005)


def test_of_an_endless_text_both_ends_are_read_and_offsets_are_right() -> None:
    text = "a@b.com " + "filler " * 50_000 + " c@d.com"
    assert found(text) == [("EMAIL_ADDRESS", "a@b.com"), ("EMAIL_ADDRESS", "c@d.com")]
