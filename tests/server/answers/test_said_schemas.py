"""The schema that clients put into the words of a conversation is found there."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.serving import serving
from simserve.server.answers.said_schemas import said_schema

EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "day": {"type": "integer", "minimum": 1, "maximum": 31}},
    "required": ["name", "day"],
}
OTHER: dict[str, Any] = {"properties": {"foo": {"type": "array", "items": {"type": "string"}}}, "required": ["foo"]}
OF_NOTHING: dict[str, Any] = {"properties": {"a": {"enum": []}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([f"Answer in JSON like this:\n```\n{json.dumps(EVENT, indent=2)}\n```\nNothing else."], EVENT),
        ([f"For the schema {json.dumps(OTHER)} the object {{...}} is one. Yours: {json.dumps(EVENT)}"], EVENT),
        ([json.dumps(OTHER)], {"type": "object", **OTHER}),
        ([json.dumps(EVENT), "Alice is here on day 3."], EVENT),
        ([json.dumps(OTHER), json.dumps(EVENT)], EVENT),
        ([json.dumps(EVENT), json.dumps(OF_NOTHING)], EVENT),
        (["{" * 500 + json.dumps(EVENT)], EVENT),
        (["Give me a {name} as JSON", '{"name": "Bob"}', '{"properties": 3}', '{"properties": {"a": 1}}'], None),
        (['{"type": "array", "properties": {}}', '{"properties": {"a": {"type": "nonsense"}}}'], None),
        (["{" * 100_000], None),
        ([], None),
    ],
)
def test_the_last_schema_that_something_satisfies(texts: list[str], found: dict[str, Any] | None) -> None:
    assert said_schema(texts) == found


@given(st.lists(st.text(alphabet='{}[]":, aproperties', max_size=60)))
def test_no_text_is_too_strange(texts: list[str]) -> None:
    assert said_schema([*texts, json.dumps(EVENT)]) == EVENT
    said_schema(texts)


@pytest.mark.parametrize(
    "more", [{"response_format": {"type": "json_object"}}, {"structured_outputs": {"json_object": True}}]
)
async def test_json_that_no_field_describes_is_what_the_messages_ask_for(more: dict[str, Any]) -> None:
    messages = [
        {"role": "system", "content": f"Answer with JSON of this schema: {json.dumps(EVENT)}"},
        {"role": "user", "content": "Alice comes on day 3."},
    ]
    async with serving() as client, client.chat(messages=messages, **more) as response:
        answer = await response.json()
    told = json.loads(answer["choices"][0]["message"]["content"])
    jsonschema.validate(told, EVENT)
    assert told["day"] == 3
