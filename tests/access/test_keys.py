from __future__ import annotations

import hashlib

import pytest

from llmobs.access import ANYONE, Key, Keys, Quota, Role
from llmobs.errors import ConfigurationError


def _sha256(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def test_without_keys_everybody_may_do_everything() -> None:
    keys = Keys()
    assert keys.is_open
    assert keys.check({}) is ANYONE
    assert all(ANYONE.may(role) for role in Role)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer k1"},
        {"authorization": "bearer  k1 "},
        {"x-api-key": "k1"},
        {"api-key": "k1"},
        {"authorization": "Basic abc", "x-api-key": "k1"},
        {"authorization": "Bearer k1", "x-api-key": "wrong"},
    ],
)
def test_a_key_is_found_where_senders_put_it(headers: dict[str, str]) -> None:
    owner = Keys([Key("k0"), Key("k1", name="app")]).check(headers)
    assert owner is not None
    assert owner.name == "app"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "k1"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong", "x-api-key": "k1"},
        {"x-api-key": ""},
        {"x-api-key": "K1"},
        {"x-api-key": "k1x"},
        {"x-api-key": _sha256("k1")},
        {"x-api-key": "\udcff"},
    ],
)
def test_anything_else_is_nobody(headers: dict[str, str]) -> None:
    assert Keys(["k1"]).check(headers) is None


def test_a_key_may_be_configured_by_its_hash() -> None:
    keys = Keys([_sha256("k1"), Key(_sha256("k2").upper().replace("SHA", "sha"), name="two")])
    assert keys.check({"x-api-key": "k1"}) is not None
    owner = keys.check({"x-api-key": "k2"})
    assert owner is not None
    assert owner.name == "two"


def test_a_key_may_do_what_it_is_for_and_who_sends_may_give_feedback_too() -> None:
    keys = Keys(["i", *(Key(role.value[0], role=role) for role in Role if role is not Role.INGEST)])
    may = {
        shown: [
            role for role in Role if (owner := keys.check({"api-key": shown})) and owner.may(role)
        ]
        for shown in "ifra"
    }
    assert may == {
        "i": [Role.INGEST, Role.FEEDBACK],
        "f": [Role.FEEDBACK],
        "r": [Role.READ],
        "a": list(Role),
    }


def test_an_owner_has_the_quota_of_the_key_and_a_name_that_does_not_give_it_away() -> None:
    quota = Quota(spans_per_s=1)
    key = Key("a long secret", quota=quota)
    owner = Keys([key]).check({"api-key": "a long secret"})
    assert owner is not None
    assert owner.quota is quota
    assert owner.name == f"key-{hashlib.sha256(b'a long secret').hexdigest()[:8]}"
    assert "secret" not in repr(key) + repr(owner)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([""], "empty"),
        (["  "], "empty"),
        (["sha256:12ab"], "64 hex digits"),
        (["sha256:" + "x" * 64], "64 hex digits"),
        (["k1", _sha256("k1")], "twice"),
    ],
)
def test_keys_that_cannot_be_meant_are_refused(keys: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Keys(keys)
