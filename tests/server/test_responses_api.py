"""``/v1/responses`` with the official client, which validates every body and every event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import openai
import pytest

from server.serving import serving
from simserve.server.responses_api.store import KeptHere

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
    answer = await client.responses.create(model="facebook/opt-125m", input="Hello", max_output_tokens=9)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 9
    assert answer.output_text
    whole = await client.responses.create(model="facebook/opt-125m", input="Hello")
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
    asked: Any = {"model": "facebook/opt-125m", "input": "weather, please", "temperature": 0, **fields}
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
    first = await client.responses.create(model="facebook/opt-125m", input="Rome?", tools=[TOOL])
    (call,) = [item for item in first.output if item.type == "function_call"]
    jsonschema.validate(json.loads(call.arguments), TOOL["parameters"])
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    second = await client.responses.create(
        model="facebook/opt-125m", input=[result], tools=[TOOL], previous_response_id=first.id
    )
    assert second.output_text
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens


async def test_a_form(client: openai.AsyncOpenAI) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}
    answer = await client.responses.create(model="facebook/opt-125m", input="Count", text=form)
    jsonschema.validate(json.loads(answer.output_text), SCHEMA)


async def test_responses_are_remembered(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="facebook/opt-125m", input="Hello", max_output_tokens=3)
    again = await client.responses.retrieve(answer.id)
    assert again.output_text == answer.output_text
    await client.responses.delete(answer.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(answer.id)
    kept_out = await client.responses.create(model="facebook/opt-125m", input="Hi", store=False, max_output_tokens=3)
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="facebook/opt-125m", input="On", previous_response_id=kept_out.id)


@pytest.mark.parametrize(
    "fields",
    [
        {"input": []},
        {"input": 7},
        {"background": True, "store": False},
        {"background": True, "stream": True},
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
        await client.responses.create(**{"model": "facebook/opt-125m", "input": "Hello", **fields})


SLOW = "engine: {time_scale: 0.02}\nmodels: {default: facebook/opt-125m}\ninference: {streaming_default: true}\n"


async def until(client: openai.AsyncOpenAI, number: str, status: str) -> Any:
    """The response once it has that status."""
    async with asyncio.timeout(30):
        while (answer := await client.responses.retrieve(number)).status != status:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return answer


async def test_a_response_in_the_background_is_looked_up_later(client: openai.AsyncOpenAI) -> None:
    fields: Any = {"model": "facebook/opt-125m", "input": "Hello"}
    begun = await client.responses.create(**fields, background=True, extra_headers={"X-Request-Id": "mine"})
    assert begun.status == "queued"
    assert begun.background
    assert not begun.output
    ended = await until(client, begun.id, "completed")
    assert ended.output_text == (await client.responses.create(**fields)).output_text
    more = await client.responses.create(
        model="facebook/opt-125m", input="And then?", previous_response_id=begun.id, max_output_tokens=1
    )
    assert more.usage.input_tokens > ended.usage.total_tokens  # type: ignore[union-attr]
    assert (await client.responses.cancel(begun.id)).status == "completed"


async def test_a_response_in_the_background_is_refused_as_any_other(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="nobody", input="Hello", background=True)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        await client.responses.create(model="facebook/opt-125m", input="Hello " * 5000, background=True)


async def test_a_response_in_the_background_is_cancelled() -> None:
    async with (
        serving(SLOW) as plain,
        openai.AsyncOpenAI(base_url=f"{plain.session._base_url}/v1", api_key="x", max_retries=0) as client,
    ):
        begun = await client.responses.create(
            model="facebook/opt-125m", input="Hello", background=True, max_output_tokens=1900
        )
        assert (await client.responses.retrieve(begun.id)).status == "in_progress"
        with pytest.raises(openai.BadRequestError, match="in_progress"):
            await client.responses.create(model="facebook/opt-125m", input="x", previous_response_id=begun.id)
        assert (await client.responses.cancel(begun.id)).status == "cancelled"
        assert (await client.responses.retrieve(begun.id)).status == "cancelled"
        async with asyncio.timeout(30):
            while (await (await plain.session.get("/status")).json())["running_requests"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_only_what_is_in_the_background_is_cancelled(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="facebook/opt-125m", input="Hello", max_output_tokens=1)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        await client.responses.cancel(answer.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.cancel("resp_nobody")


async def test_the_oldest_responses_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simserve.server.responses_api.store.MAX_STORED", 2)
    monkeypatch.setattr("simserve.server.responses_api.store.MAX_STORED_BYTES", 100)
    kept = KeptHere()
    for number in ("a", "b", "b", "c"):
        await kept.put(number, b"x" * 10)
    assert [await kept.get(number) is not None for number in "abc"] == [False, True, True]
    await kept.put("c", b"x" * 95)
    assert [await kept.get(number) is not None for number in "bc"] == [False, True]
    assert await kept.remove("c")
    assert not await kept.remove("c")
    await kept.put("d", b"x" * 101)
    assert await kept.get("d") is None


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


async def test_what_was_streamed_is_not_streamed_again(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model=MODEL, input="Hello", max_output_tokens=2)
    with pytest.raises(openai.BadRequestError, match="stream"):
        await client.responses.retrieve(answer.id, stream=True)
