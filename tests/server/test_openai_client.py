"""The official client against the simulated engine: the whole way from a prompt to simulated tokens and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.server.run import listening
from simserve.server.service import Service
from simserve.server.simulated import simulated_service
from simserve.workload import load_tokenizer

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
MESSAGES = [{"role": "user", "content": "Tell me something about the sea."}]


def service(time_scale: float, **options: object) -> Service:
    return simulated_service(load_model(MODEL), load_hardware("A100"), EngineOptions(**options), time_scale=time_scale)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with listening(service(time_scale=float("inf")), "127.0.0.1", 0) as url:
        yield f"{url}/v1"


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


async def test_the_text_is_readable_and_has_exactly_the_tokens_that_usage_says(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=40, seed=1)
    text = answer.choices[0].message.content
    assert len(load_tokenizer(load_model(MODEL).path).encode(text)) == answer.usage.completion_tokens == 40
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 40
    assert all(word.strip(".,;:'’()-").isalpha() or not word.isascii() for word in text.split()[:5])


async def test_the_text_depends_on_prompt_and_seed_alone(client: openai.AsyncOpenAI) -> None:
    async def text(seed: int, **more: object) -> str:
        answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES, seed=seed, **more)
        return str(answer.choices[0].message.content)

    first = await text(1, max_tokens=60)
    assert await text(1, max_tokens=60, n=2, temperature=1.5) == first
    assert first.startswith(await text(1, max_tokens=20))
    assert await text(2, max_tokens=60) != first


async def test_a_stream_says_the_same_as_a_whole_answer(client: openai.AsyncOpenAI) -> None:
    ask = {"model": MODEL, "messages": MESSAGES, "seed": 5, "max_tokens": 30, "stop": ["."]}
    whole = await client.chat.completions.create(**ask)
    stream = await client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


@pytest.mark.parametrize("more", [{}, {"logprobs": 1}, {"extra_body": {"return_token_ids": True}}, {"max_tokens": 1}])
async def test_legacy_completions_stream_a_chunk_for_each_token(client: openai.AsyncOpenAI, more: Any) -> None:
    """The last says why it ended; to vLLM's load client one chunk more would be an interval of no time."""
    asked = {"model": MODEL, "prompt": "Once", "max_tokens": 5, "seed": 1} | more
    chunks = [chunk async for chunk in await client.completions.create(stream=True, **asked)]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (asked["max_tokens"] - 1) + ["length"]
    assert all(chunk.choices[0].text for chunk in chunks)
    assert (
        "".join(chunk.choices[0].text for chunk in chunks) == (await client.completions.create(**asked)).choices[0].text
    )


async def test_models_can_be_listed_and_retrieved(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).id == MODEL


async def test_errors_become_the_clients_exceptions(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        await client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        await client.completions.create(model=MODEL, prompt=[1] * 140_000)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        await client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=9)


async def test_a_prompt_asked_again_comes_from_the_prefix_cache(client: openai.AsyncOpenAI) -> None:
    prompt = [7] * 1000
    first = await client.completions.create(model=MODEL, prompt=prompt, max_tokens=1)
    again = await client.completions.create(model=MODEL, prompt=prompt, max_tokens=1)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert again.usage.prompt_tokens_details.cached_tokens == 992  # whole blocks of 16, all but the last token


async def test_a_hundred_requests_from_ten_threads(url: str) -> None:
    def ask(number: int) -> int:
        answer = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": f"Number {number}?"}], max_tokens=10
        )
        return int(answer.usage.completion_tokens)

    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client, ThreadPoolExecutor(10) as threads:
        loop = asyncio.get_running_loop()
        counts = await asyncio.gather(*(loop.run_in_executor(threads, ask, number) for number in range(100)))
    assert counts == [10] * 100


async def test_in_real_time_tokens_come_when_the_simulation_says() -> None:
    async with (
        listening(service(time_scale=1.0), "127.0.0.1", 0) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        start = time.monotonic()
        raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, max_tokens=30)
        wall_s = time.monotonic() - start
    simulated_s = float(raw.headers["x-simserve-e2e-ms"]) / 1e3
    assert 0.1 < simulated_s <= wall_s < simulated_s + 1.0


async def test_a_client_that_hangs_up_frees_its_kv_blocks_within_a_step() -> None:
    serving = service(time_scale=1.0)
    async with (
        listening(serving, "127.0.0.1", 0) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        stream = await client.completions.create(model=MODEL, prompt=[3] * 500, max_tokens=5000, stream=True)
        await anext(aiter(stream))
        assert serving.engine.status().kv_blocks_used >= 32
        await stream.close()
        await asyncio.sleep(0.2)
        assert serving.engine.status().kv_blocks_used == 0
        assert serving.engine.status().aborted_requests == 1
