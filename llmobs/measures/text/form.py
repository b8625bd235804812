"""Whether an answer has the form that was asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NoReturn

from llmobs.measures.text.schema import schema_fault

__all__ = ["FORM_VERSION", "json_faults"]

FORM_VERSION: Final = "1"
"""Changes whenever a text could be judged in another way."""

_FENCE: Final = "```"


def json_faults(texts: Sequence[str], schemas: Sequence[str]) -> list[str]:
    """Say of each text why it isn't the JSON that was asked for, or "" where it is.

    Args:
        texts: Whole answers.
        schemas: The JSON schema of each as JSON; "": any JSON will do. One that can't be read is
            left out of account.

    Returns:
        One short sentence each, never a text's own words.
    """
    return [_fault(text, schema) for text, schema in zip(texts, schemas, strict=True)]


def _fault(text: str, schema: str) -> str:
    try:
        value = _DECODER.decode(text.strip())
    except json.JSONDecodeError as error:
        if text.lstrip().startswith(_FENCE):
            return "a code fence stands around the JSON"
        n_before = len(text) - len(text.lstrip())
        return f"no JSON from character {n_before + error.pos} on"
    except RecursionError:
        return "the JSON is nested too deeply to be read"
    except ValueError:  # NaN, or a number of thousands of digits
        return "the JSON has a number that JSON does not have"
    return schema_fault(value, _parsed(schema)) if schema else ""


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


# json reads NaN and Infinity, which other readers don't.
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)


@lru_cache(maxsize=256)  # an application asks for the same few forms
def _parsed(schema: str) -> Any:
    try:
        return json.loads(schema)
    except (ValueError, RecursionError):
        return True  # everything fits it
