"""``/v1/responses`` with the official client, which validates every body and every event."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import openai
import orjson
import pytest

from server.serving import serving
from simserve.server.errors import ApiError
from simserve.server.responses_api.store import Store, Stored

MODEL = "facebook/opt-125m"

TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "How it is.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
SCHEMA: Any = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FAST_STREAM = "engine: {time_scale: 50}\nmodels: {default: facebook/opt-125m}\n"


@pytest.fixture
async def client() -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        serving(FAST_STREAM) as plain,
        openai.AsyncOpenAI(
            base_url=f"{plain.session._base_url}/v1", api_key="x", max_retries=0, _strict_response_validation=True
        ) as client,
    ):
        yield client


async def test_a_text(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model=MODEL, input="Hello", max_output_tokens=9)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 9
    assert answer.output_text
    whole = await client.responses.create(model=MODEL, input="Hello")
    assert whole.status == "completed"
    assert whole.output_text.startswith(answer.output_text)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"reasoning": {"effort": "minimal"}},
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "weather"}},
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}},
        {"top_logprobs": 2, "max_output_tokens": 5},
    ],
)
async def test_a_stream_says_the_same_as_the_whole(client: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    asked: Any = {"model": MODEL, "input": "weather, please", "temperature": 0, **fields}
    whole = await client.responses.create(**asked)
    stream = await client.responses.create(stream=True, **asked)
    events = [event async for event in stream]
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == f"response.{whole.status}"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    final = events[-1].response  # type: ignore[union-attr]
    assert [_said(item) for item in final.output] == [_said(item) for item in whole.output]
    added = [event.output_index for event in events if event.type == "response.output_item.added"]
    assert added == list(range(len(whole.output)))
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [_said(item) for item in done] == [_said(item) for item in whole.output]
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == whole.output_text


def _said(item: Any) -> Any:
    """An item but for its ids."""
    return {k: v for k, v in item.model_dump().items() if k not in ("id", "call_id")}


async def test_a_function_is_called_and_its_result_talked_about(client: openai.AsyncOpenAI) -> None:
    first = await client.responses.create(model=MODEL, input="Rome?", tools=[TOOL])
    (call,) = [item for item in first.output if item.type == "function_call"]
    jsonschema.validate(json.loads(call.arguments), TOOL["parameters"])
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    second = await client.responses.create(model=MODEL, input=[result], tools=[TOOL], previous_response_id=first.id)
    assert second.output_text
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens


async def test_a_form(client: openai.AsyncOpenAI) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}
    answer = await client.responses.create(model=MODEL, input="Count", text=form)
    jsonschema.validate(json.loads(answer.output_text), SCHEMA)


async def test_responses_are_remembered(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model=MODEL, input="Hello", max_output_tokens=3)
    again = await client.responses.retrieve(answer.id)
    assert again.output_text == answer.output_text
    await client.responses.delete(answer.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(answer.id)
    kept_out = await client.responses.create(model=MODEL, input="Hi", store=False, max_output_tokens=3)
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model=MODEL, input="On", previous_response_id=kept_out.id)


@pytest.mark.parametrize(
    "fields",
    [
        {"input": []},
        {"input": 7},
        {"background": True},
        {"tools": [{"type": "web_search"}]},
        {"tool_choice": "required"},
        {"input": [{"type": "computer_call"}]},
        {"input": [{"type": "reasoning"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}]},
        {"text": {"format": {"type": "json_schema", "name": "n"}}},
        {"conversation": "conv_1"},
        {"prompt": {"id": "pmpt_1"}},
        {"input": [{"type": "item_reference"}]},
    ],
)
async def test_what_cannot_be_done_is_refused(client: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(**{"model": MODEL, "input": "Hello", **fields})


async def test_what_was_asked_is_told_item_by_item(client: openai.AsyncOpenAI) -> None:
    items: Any = [
        {"role": "user", "content": "Rome?"},
        {"role": "user", "content": [{"type": "input_text", "text": "Or Paris?"}]},
        {"role": "assistant", "content": "Which?"},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"role": "user", "content": "And now?", "id": 7},
    ]
    answer = await client.responses.create(model=MODEL, input=items, max_output_tokens=2)
    told = [item async for item in client.responses.input_items.list(answer.id, limit=2)]
    assert [item.type for item in reversed(told)] == [item.get("type", "message") for item in items]
    assert told[0].content[0].text == "And now?"  # type: ignore[union-attr]
    assert len({item.id for item in told}) == len(items)
    first = await client.responses.input_items.list(answer.id, limit=2, order="asc")
    assert (first.has_more, first.data) == (True, list(reversed(told))[:2])
    for query in ({"limit": "x"}, {"order": "up"}, {"after": "nobody"}):
        with pytest.raises(openai.BadRequestError):
            await client.responses.input_items.list(answer.id, extra_query=query)


async def test_an_item_is_referred_to_instead_of_sent_again(client: openai.AsyncOpenAI) -> None:
    """So do clients that know that responses are stored, such as Vercel's AI SDK."""
    first = await client.responses.create(model=MODEL, input="Hello", max_output_tokens=9)
    more = {"role": "user", "content": "More"}

    async def tokens(said: Any) -> int:
        answer = await client.responses.create(
            model=MODEL, input=[{"role": "user", "content": "Hello"}, said, more], max_output_tokens=2
        )
        assert answer.usage is not None
        return answer.usage.input_tokens

    sent_again = await tokens({"role": "assistant", "content": first.output_text})
    assert await tokens({"type": "item_reference", "id": first.output[0].id}) == sent_again
    await client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match="no item"):
        await tokens({"type": "item_reference", "id": first.output[0].id})


async def test_tokens_are_counted_before_anything_is_answered(client: openai.AsyncOpenAI) -> None:
    asked: Any = {"model": MODEL, "input": "Hello", "instructions": "Be brief.", "tools": [TOOL]}
    answer = await client.responses.create(**asked, max_output_tokens=2)
    assert answer.usage is not None
    assert (await client.responses.input_tokens.count(**asked)).input_tokens == answer.usage.input_tokens


async def test_what_was_answered_at_once_is_neither_cancelled_nor_streamed_again(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model=MODEL, input="Hello", max_output_tokens=2)
    with pytest.raises(openai.BadRequestError, match="background"):
        await client.responses.cancel(answer.id)
    with pytest.raises(openai.BadRequestError, match="background"):
        await client.responses.retrieve(answer.id, stream=True)
    with pytest.raises(openai.NotFoundError):
        await client.responses.cancel("resp_nobody")


def test_a_store_forgets_the_oldest_and_their_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simserve.server.responses_api.store.MAX_STORED", 2)
    store = Store()
    for number in ("a", "b", "b", "c"):
        store.put(number, Stored(orjson.dumps({"output": [{"id": f"msg_{number}"}]}), [], []))
    assert store.item("msg_c", "input.0") == {"id": "msg_c"}
    for gone in (lambda: store.get("a"), lambda: store.item("msg_a", "input.0")):
        with pytest.raises(ApiError, match="There is no"):
            gone()
    store.remove("b")
    store.remove("c")
    assert (store._bytes, store._of_item) == (0, {})
