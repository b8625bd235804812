"""A small share of `benchmarks.fuzz`; the whole run takes an hour."""

from __future__ import annotations

import pytest

from benchmarks.fuzz import inputs, problem
from llmobs.analyzer.decode import decode_spans, decode_spans_upb

N_INPUTS = 2500


@pytest.mark.usefixtures("warm")
def test_mutated_requests_are_read_or_refused_alike_by_scan_and_upb() -> None:
    for number in range(N_INPUTS):
        reason = problem(inputs(20261124, number), thorough=number % 8 == 0)
        assert reason is None, f"input {number}: {reason}"


def test_an_input_can_be_made_again() -> None:
    assert inputs(1, 77) == inputs(1, 77) != inputs(1, 78)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
    "body",
    [
        # upb takes no tag and no length of more than 5 bytes, even if they are zeros.
        b"\x8a\x80\x80\x80\x80\x00\x00",
        b"\x0a\x80\x80\x80\x80\x80\x00",
    ],
)
def test_numbers_written_too_long_are_refused_by_both(body: bytes) -> None:
    assert len(decode_spans([body]).rejected) == len(decode_spans_upb([body]).rejected) == 1
