"""Simulated tool calls: which are made, what they say, and how a stream tells them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest

from server.conftest import Client
from server.serving import serving
from simserve.workload import load_tokenizer

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 14}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


def tool(name: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters or WEATHER}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving() as client:
        yield client


async def choice_of(client: Client, **fields: Any) -> dict[str, Any]:
    async with client.chat(**fields) as response:
        body = await response.json()
        assert response.status == 200, body
        choice: dict[str, Any] = body["choices"][0]
        return choice


@pytest.mark.parametrize(("how", "reason"), [("auto", "tool_calls"), ("required", "tool_calls"), (named("f"), "stop")])
async def test_a_tool_is_called_with_arguments_that_satisfy_its_schema(client: Client, how: Any, reason: str) -> None:
    choice = await choice_of(client, tools=[tool("f")], tool_choice=how)
    assert choice["finish_reason"] == reason
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "f")
    jsonschema.validate(json.loads(call["function"]["arguments"]), WEATHER)


async def test_no_tool_is_called_unasked_or_after_a_result(client: Client) -> None:
    assert "tool_calls" not in (await choice_of(client, tools=[tool("f")], tool_choice="none"))["message"]
    earlier = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    history = [
        {"role": "user", "content": "How warm is it?"},
        {"role": "assistant", "tool_calls": [earlier]},
        {"role": "tool", "tool_call_id": "c", "content": "17 degrees"},
    ]
    after = await choice_of(client, tools=[tool("f")], messages=history)
    assert after["message"]["content"]
    assert after["finish_reason"] == "stop"
    forced = await choice_of(client, tools=[tool("f")], messages=history, tool_choice="required")
    assert forced["message"]["tool_calls"]


async def test_the_tools_that_the_question_names_are_called_one_by_one_or_side_by_side(client: Client) -> None:
    tools = [tool("rain"), tool("wind"), tool("snow")]
    messages = [{"role": "user", "content": "Ask wind and snow about Oslo."}]
    for parallel, names in ((None, ["wind", "snow"]), (False, ["wind"])):
        choice = await choice_of(client, tools=tools, messages=messages, parallel_tool_calls=parallel)
        assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == names
        assert len({call["id"] for call in choice["message"]["tool_calls"]}) == len(names)


async def test_only_allowed_tools_are_called(client: Client) -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named("snow")]}}
    choice = await choice_of(client, tools=[tool("rain"), tool("snow")], tool_choice=allowed)
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["snow"]


async def test_a_stream_has_the_name_first_and_then_the_arguments_bit_by_bit() -> None:
    async with serving("engine: {time_scale: 50}\nmodels: {default: facebook/opt-125m}\n") as client:
        messages = [{"role": "user", "content": "rain and wind, please"}]
        fields = {"tools": [tool("rain"), tool("wind")], "messages": messages, "seed": 1}
        whole = (await choice_of(client, **fields))["message"]["tool_calls"]
        chunks = await client.chunks(client.chat(stream=True, **fields))
    deltas = [delta for chunk in chunks for delta in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert len(deltas) > 4
    for at, call in enumerate(whole):
        mine = [delta for delta in deltas if delta["index"] == at]
        assert mine[0]["function"]["name"] == call["function"]["name"]
        assert mine[0]["id"].startswith("call_")
        assert all(set(delta) == {"index", "function"} for delta in mine[1:])
        assert "".join(delta["function"]["arguments"] for delta in mine) == call["function"]["arguments"]


async def test_a_limit_cuts_a_call_off(client: Client) -> None:
    choice = await choice_of(client, tools=[tool("f")], max_tokens=3)
    assert choice["finish_reason"] == "length"


async def test_tokens_are_counted_as_the_model_writes_a_call(client: Client) -> None:
    async with client.chat(tools=[tool("f")], seed=3) as response:
        body = await response.json()
    arguments = body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    frame = f'<tool_call>\n{{"name": "f", "arguments": {arguments}}}\n</tool_call>'
    # Where the frame and the arguments meet, tokens may merge.
    assert abs(body["usage"]["completion_tokens"] - len(load_tokenizer().encode(frame))) <= 3
    async with client.chat(tools=[tool("f")], min_tokens=200) as response:
        assert (await response.json())["usage"]["completion_tokens"] == 200
