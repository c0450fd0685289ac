"""The schema that a conversation has in its words, for clients that ask for JSON and do not say which in a field.

So do Instructor's JSON mode, Pydantic AI's prompted output and LangChain's format instructions; a model would follow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from simserve.server.answers.json_values import Hints
from simserve.server.answers.schemas import check_schema, value_for
from simserve.server.errors import ApiError

MOST_CHARACTERS = 64 * 1024
"""Of each text, its last ones."""

MOST_BRACES = 200
"""That are looked at, the last ones first: an object may begin at any."""

MOST_SCHEMAS = 4

_decoder = json.JSONDecoder()


def said_schema(texts: Sequence[str]) -> dict[str, Any] | None:
    """The last JSON schema of an object in ``texts`` that something satisfies; None where there is none.

    This takes a few milliseconds where there is much that looks like one.
    """
    for schema in islice(_likely_schemas(texts), MOST_SCHEMAS):
        try:
            check_schema(schema, "messages")
            value_for(schema, "", Hints(), "messages")
        except ApiError:
            continue
        return schema
    return None


def _likely_schemas(texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    looked_at = 0
    for text in (text[-MOST_CHARACTERS:] for text in reversed(texts)):
        whole: list[dict[str, Any]] = []
        end, braces = 0, [at for at, character in enumerate(text) if character == "{"][looked_at - MOST_BRACES :]
        looked_at += len(braces)
        for at in braces:
            if at >= end:
                value, end = _object_at(text, at)
                whole += [value] if _looks_like_one(value) else []
        for value in reversed(whole):
            yield {"type": "object", **value}
        if looked_at >= MOST_BRACES:
            return


def _object_at(text: str, at: int) -> tuple[dict[str, Any], int]:
    """The JSON object that begins there, and where it ends; an empty one where none does."""
    try:
        return _decoder.raw_decode(text, at)
    except (ValueError, RecursionError):
        return {}, at + 1


def _looks_like_one(value: dict[str, Any]) -> bool:
    properties = value.get("properties")
    is_of_object = value.get("type", "object") == "object"
    return is_of_object and isinstance(properties, dict) and all(isinstance(one, dict) for one in properties.values())
