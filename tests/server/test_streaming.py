"""Streamed answers: the order of chunks, when they come, and what is in them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from server.conftest import Client
from server.fakes import ScriptedEngine


def deltas(chunks: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    return [one["delta"] for chunk in chunks for one in chunk["choices"] if one["index"] == index]


async def test_a_chat_stream_is_role_then_tokens_then_the_reason(client: Client) -> None:
    chunks = await client.chunks(client.chat(stream=True, max_tokens=3))
    assert deltas(chunks) == [
        {"role": "assistant", "content": ""},
        {"content": "w0"},
        {"content": " w1"},
        {"content": " w2"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, None, "length"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert not any("usage" in chunk for chunk in chunks)


@pytest.mark.parametrize("more", [{}, {"logprobs": 1}, {"return_token_ids": True}])
async def test_a_completion_stream_has_a_chunk_for_each_token_and_no_more(client: Client, more: Any) -> None:
    """Load clients take every chunk of a completion for a token: the reason must not have one of its own."""
    chunks = await client.chunks(client.complete(stream=True, max_tokens=2, **more))
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["w0", " w1"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "length"]
    if "logprobs" in more:
        assert [chunk["choices"][0]["logprobs"]["tokens"] for chunk in chunks] == [["w0"], [" w1"]]
    if "return_token_ids" in more:
        assert [len(chunk["choices"][0]["token_ids"]) for chunk in chunks] == [1, 1]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


async def test_usage_comes_last_and_without_choices(client: Client) -> None:
    chunks = await client.chunks(client.chat(stream=True, max_tokens=3, stream_options={"include_usage": True}))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 4 + 3
    assert not any("usage" in chunk for chunk in chunks[:-1])


async def test_usage_so_far_in_every_chunk(client: Client) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = await client.chunks(client.chat(stream=True, max_tokens=3, stream_options=options))
    counted = [chunk["usage"]["completion_tokens"] for chunk in chunks if "usage" in chunk]
    assert counted == [0, 1, 2, 3, 3, 3]
    assert chunks[0]["usage"] == {"prompt_tokens": 4, "completion_tokens": 0, "total_tokens": 4}


async def test_a_stop_string_is_never_streamed(client: Client) -> None:
    chunks = await client.chunks(client.chat(stream=True, max_tokens=50, stop=["2 w3"]))
    assert "".join(delta.get("content", "") for delta in deltas(chunks)) == "w0 w1 w"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_choices_are_streamed_side_by_side(client: Client) -> None:
    chunks = await client.chunks(client.chat(stream=True, max_tokens=2, n=3))
    for index in range(3):
        assert "".join(delta.get("content", "") for delta in deltas(chunks, index)) == "w0 w1"
    indices = [chunk["choices"][0]["index"] for chunk in chunks]
    assert indices != sorted(indices)


async def test_tokens_of_one_step_share_a_chunk(client: Client, engine: ScriptedEngine) -> None:
    engine.tokens_per_step = 2
    chunks = await client.chunks(client.chat(stream=True, max_tokens=5))
    assert [delta["content"] for delta in deltas(chunks)[1:-1]] == ["w0 w1", " w2 w3", " w4"]


async def test_awkward_model_names_survive_the_prebuilt_chunks(client: Client, service: Any) -> None:
    service.model_names = ['say "hi" \\ {}%s\u0000']
    chunks = await client.chunks(client.chat(stream=True, max_tokens=2))
    assert {chunk["model"] for chunk in chunks} == set(service.model_names)


async def test_nothing_is_sent_before_the_first_token_and_tokens_come_one_by_one(
    client: Client, engine: ScriptedEngine
) -> None:
    """Benchmark clients take the first event for the first token, so the role must not come earlier."""
    engine.step_s = 0.05
    start = time.monotonic()
    async with client.chat(stream=True, max_tokens=4) as response:
        arrivals = [time.monotonic() - start async for line in response.content if line.startswith(b"data: {")]
    role, first, second = arrivals[:3]
    assert role >= 0.05
    assert first - role < 0.04
    assert second - first > 0.02
    assert arrivals[-1] >= 0.2


async def test_a_slow_reader_does_not_hold_up_the_others(client: Client, engine: ScriptedEngine) -> None:
    async with client.chat(stream=True, max_tokens=200, n=8) as slow:
        fast = await asyncio.wait_for(client.chunks(client.chat(stream=True, max_tokens=50)), timeout=5)
        assert len(fast) == 52
        assert slow.status == 200


async def test_the_log_says_who_asked_what(client: Client, caplog: Any) -> None:
    caplog.set_level("INFO", logger="simserve.server")
    await client.chunks(client.chat(stream=True, max_tokens=3))
    assert "Added request: input_len=4, output_len=3" in caplog.text
    assert "127.0.0.1:" in caplog.text
    assert "POST /v1/chat/completions" in caplog.text
