from __future__ import annotations

import json
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmobs.measures.text import json_faults
from llmobs.measures.text.schema import schema_fault

ORDER = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "state": {"enum": ["open", "shipped"]},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}, "minItems": 1},
    },
    "required": ["id", "items"],
    "additionalProperties": False,
    "$defs": {"item": {"type": "object", "required": ["name"]}},
}


def fault(text: str, schema: Any = None) -> str:
    return json_faults([text], ["" if schema is None else json.dumps(schema)])[0]


@pytest.mark.parametrize("text", ['{"a": [1, 2.5, null]}', " [] \n", '"word"', "true", "-1e9"])
def test_json_of_any_kind_is_fine_where_no_schema_says_more(text: str) -> None:
    assert fault(text) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('```json\n{"a": 1}\n```', "a code fence stands around the JSON"),
        ('Sure! {"a": 1}', "no JSON from character 0 on"),
        ('  {"a": 1} Done.', "no JSON from character 11 on"),
        ('{"a": 1, "b": [2', "no JSON from character 16 on"),
        ("{'a': 1}", "no JSON from character 1 on"),
        ('{"a": NaN}', "the JSON has a number that JSON does not have"),
        ("[" * 200_000, "the JSON is nested too deeply to be read"),
    ],
)
def test_what_is_no_json_is_told_with_its_place(text: str, words: str) -> None:
    assert fault(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"id": 7, "items": [{"name": "pen"}], "state": "open"}', ""),
        ('{"id": 7, "items": [{"name": "pen"}, {}]}', "/items/1/name is missing"),
        ('{"id": 7, "items": []}', "/items breaks minItems 1"),
        ('{"items": [{"name": "pen"}]}', "/id is missing"),
        ('{"id": "7", "items": [{"name": "pen"}]}', "/id is not of type integer"),
        ('{"id": true, "items": [{"name": "pen"}]}', "/id is not of type integer"),
        ('{"id": 0, "items": [{"name": "pen"}]}', "/id breaks minimum 1"),
        (
            '{"id": 7, "items": [{"name": "pen"}], "state": "lost"}',
            "/state is none of the allowed values",
        ),
        ('{"id": 7, "items": [{"name": "x"}], "why": 1}', "/ has 1 properties too many"),
        ("[]", "/ is not of type object"),
    ],
)
def test_the_first_misfit_is_told_with_its_place(text: str, words: str) -> None:
    assert fault(text, ORDER) == words


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 2.0, "a", "bcd"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
    ),
    max_leaves=8,
)
types = st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null"])
flat_schemas = st.fixed_dictionaries(
    {},
    optional={
        "type": types | st.lists(types, min_size=1, max_size=3, unique=True),
        "enum": st.lists(st.sampled_from([1, True, "a", None, 2.0]), min_size=1, max_size=3),
        "minimum": st.integers(-2, 2),
        "exclusiveMaximum": st.integers(-2, 2),
        "maxLength": st.integers(0, 3),
        "minItems": st.integers(0, 3),
        "required": st.lists(st.sampled_from("xyz"), max_size=2, unique=True),
    },
)
schemas = st.recursive(
    flat_schemas | st.booleans(),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": types,
            "properties": st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
            "additionalProperties": inner,
            "items": inner,
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
        },
    ),
    max_leaves=6,
)


@given(values, schemas)
def test_a_value_fits_where_the_reference_implementation_says_so(value: Any, schema: Any) -> None:
    assert (schema_fault(value, schema) == "") == jsonschema.Draft202012Validator(schema).is_valid(
        value
    )


@given(values, values)
def test_no_schema_makes_the_check_raise(value: Any, schema: Any) -> None:
    assert isinstance(schema_fault(value, schema), str)


def test_schemas_without_end_are_given_up_soon() -> None:
    doubling: dict[str, Any] = {"d0": {"type": "string"}}
    for i in range(1, 60):
        doubling[f"d{i}"] = {"allOf": [{"$ref": f"#/$defs/d{i - 1}"}] * 2}
    begun = time.process_time()
    assert schema_fault("text", {"$ref": "#/$defs/d59", "$defs": doubling}) == ""
    assert schema_fault(1, {"$ref": "#"}) == ""
    assert schema_fault(1, {"$ref": "https://example.com/schema"}) == ""
    assert time.process_time() - begun < 2
