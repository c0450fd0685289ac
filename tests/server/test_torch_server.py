"""The official client against a real model: what is said, how it is steered, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import openai
import pytest
import pytest_asyncio

pytest.importorskip("torch", reason="the real engine needs torch: pip install simserve[torch]")

from simserve.config import EngineOptions
from simserve.models import load_model
from simserve.server.run import listening
from simserve.server.service import Service
from simserve.server.torch_service import torch_service
from simserve.workload import Tokenizer, load_tokenizer

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "simserve/tiny-chat"
STORY = [{"role": "user", "content": "Tell me a story."}]
WILD = {"temperature": 1.5, "max_tokens": 40}


def new_service(**options: Any) -> Service:
    return torch_service(load_model(MODEL), EngineOptions(**options), device="cpu")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[openai.AsyncOpenAI]:
    """One server for all: that it goes on whatever it is asked is part of what is tested.

    In float32, where rounding does not decide what is said: in bfloat16 the size of the batch now and then does.
    """
    async with (
        listening(new_service(dtype="float32"), "127.0.0.1", 0) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.fixture(scope="module", name="tokenizer")
def models_tokenizer() -> Tokenizer:
    return load_tokenizer(load_model(MODEL).path)


def chat(client: openai.AsyncOpenAI, text: str = "", **fields: Any) -> Any:
    extra = {name: fields.pop(name) for name in list(fields) if name in VLLMS}
    messages = [{"role": "user", "content": text}] if text else STORY
    return client.chat.completions.create(model=MODEL, messages=messages, extra_body=extra, **fields)


def complete(client: openai.AsyncOpenAI, prompt: Any = "Once upon a time", **fields: Any) -> Any:
    extra = {name: fields.pop(name) for name in list(fields) if name in VLLMS}
    return client.completions.create(model=MODEL, prompt=prompt, extra_body=extra, **fields)


VLLMS = (
    "top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos", "min_tokens", "include_stop_str_in_output",
    "skip_special_tokens", "priority",
)  # fmt: skip
"""Parameters that OpenAI's client has no argument for."""


async def said(asked: Any) -> str:
    """The text of a whole answer."""
    choice = (await asked).choices[0]
    return str(choice.message.content if hasattr(choice, "message") else choice.text)


async def streamed(asked: Any) -> tuple[str, list[Any]]:
    """The text of a streamed answer's first choice, and all chunks."""
    chunks = [chunk async for chunk in await asked]
    choices = [one for chunk in chunks for one in chunk.choices if one.index == 0]
    return "".join((one.delta.content if hasattr(one, "delta") else one.text) or "" for one in choices), chunks


class TestAnswers:
    @pytest.mark.parametrize(
        ("asked", "answered"),
        [
            ("Hello", "Hello! I am a very small language model. How can I help you?"),
            ("What is 3 + 4?", "3 + 4 = 7."),
            ("What is the capital of France?", "The capital of France is Paris."),
        ],
    )
    async def test_it_says_something_sensible_and_stops(
        self, client: openai.AsyncOpenAI, asked: str, answered: str
    ) -> None:
        answer = await chat(client, asked, temperature=0)
        assert answer.choices[0].message.content == answered
        assert answer.choices[0].finish_reason == "stop"

    async def test_it_knows_what_it_is_part_of(self, client: openai.AsyncOpenAI) -> None:
        assert "LLM server" in await said(chat(client, "What is SimServe?", temperature=0))

    async def test_usage_counts_the_models_own_tokens(self, client: openai.AsyncOpenAI, tokenizer: Tokenizer) -> None:
        answer = await complete(client, "Once upon a time", max_tokens=7, temperature=0)
        assert answer.usage.prompt_tokens == 1 + len(tokenizer.encode("Once upon a time"))  # the first is <|begin|>
        assert answer.usage.completion_tokens == 7
        assert answer.choices[0].finish_reason == "length"

    async def test_a_conversation_is_remembered(self, client: openai.AsyncOpenAI) -> None:
        messages = [
            {"role": "user", "content": "My name is Nora."},
            {"role": "assistant", "content": "Nice to meet you, Nora!"},
            {"role": "user", "content": "What is my name?"},
        ]
        answer = await client.chat.completions.create(model=MODEL, messages=messages, temperature=0)
        assert answer.choices[0].message.content == "Your name is Nora."

    async def test_a_prompt_asked_again_comes_from_the_prefix_cache(self, client: openai.AsyncOpenAI) -> None:
        prompt = "The fox and the owl. " * 20
        first, again = [await complete(client, prompt, max_tokens=1) for _ in range(2)]
        assert first.usage.prompt_tokens_details.cached_tokens == 0
        assert again.usage.prompt_tokens_details.cached_tokens >= 64


class TestStreams:
    @pytest.mark.parametrize("fields", [{"temperature": 0}, {"seed": 3, **WILD}, {"seed": 4, "stop": ["the"], **WILD}])
    async def test_a_stream_says_what_a_whole_answer_says(
        self, client: openai.AsyncOpenAI, fields: dict[str, Any]
    ) -> None:
        whole = await chat(client, logprobs=True, top_logprobs=2, **fields)
        asked = chat(
            client, logprobs=True, top_logprobs=2, stream=True, stream_options={"include_usage": True}, **fields
        )
        text, chunks = await streamed(asked)
        assert text == whole.choices[0].message.content
        last = chunks[-2].choices[0]
        assert last.finish_reason == whole.choices[0].finish_reason
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        logprobs = [one for chunk in chunks if chunk.choices for one in _content(chunk.choices[0].logprobs)]
        assert logprobs == _content(whole.choices[0].logprobs)

    async def test_completions_too(self, client: openai.AsyncOpenAI) -> None:
        fields = {"prompt": ["One day", "The little"], "seed": 1, "max_tokens": 12, "echo": True}
        whole = await complete(client, **fields)
        chunks = [chunk async for chunk in await complete(client, stream=True, **fields)]
        for index in range(2):
            text = "".join(one.text for chunk in chunks for one in chunk.choices if one.index == index)
            assert text == whole.choices[index].text
            assert text.startswith(fields["prompt"][index])


class TestSeeds:
    async def test_a_seed_says_the_same_again_and_another_does_not(self, client: openai.AsyncOpenAI) -> None:
        first, again, other = [await said(chat(client, seed=seed, **WILD)) for seed in (1, 1, 2)]
        assert first == again != other

    async def test_the_first_of_several_choices_is_the_only_one_of_one(self, client: openai.AsyncOpenAI) -> None:
        several = await chat(client, seed=1, n=3, **WILD)
        texts = [choice.message.content for choice in several.choices]
        assert texts[0] == await said(chat(client, seed=1, **WILD))
        assert len(set(texts)) == 3

    async def test_without_a_seed_answers_differ(self, client: openai.AsyncOpenAI) -> None:
        assert len({await said(chat(client, **WILD)) for _ in range(4)}) > 1

    async def test_greedy_answers_do_not_depend_on_the_seed(self, client: openai.AsyncOpenAI) -> None:
        assert len({await said(chat(client, temperature=0, max_tokens=30, seed=seed)) for seed in (1, 2)}) == 1

    async def test_what_others_ask_meanwhile_changes_nothing(self, client: openai.AsyncOpenAI) -> None:
        alone = await said(chat(client, seed=9, **WILD))
        asked = [said(chat(client, f"Count to {3 + at}.", seed=at)) for at in range(10)]
        together = await asyncio.gather(said(chat(client, seed=9, **WILD)), *asked)
        assert together[0] == alone


class TestWhereAnswersEnd:
    async def test_a_stop_string_split_over_two_tokens_is_not_said(
        self, client: openai.AsyncOpenAI, tokenizer: Tokenizer
    ) -> None:
        asked = {"temperature": 0, "max_tokens": 30}
        whole = await said(chat(client, **asked))
        _, pieces = tokenizer.split(whole)
        stop = pieces[6][-2:] + pieces[7][:2]  # neither token has it alone
        assert whole.count(stop) == 1
        cut = await chat(client, stop=stop, **asked)
        assert cut.choices[0].message.content == whole[: whole.index(stop)]
        assert (cut.choices[0].finish_reason, cut.choices[0].stop_reason) == ("stop", stop)
        text, chunks = await streamed(chat(client, stop=[stop, "never said"], stream=True, **asked))
        assert text == whole[: whole.index(stop)]
        assert (chunks[-1].choices[0].finish_reason, chunks[-1].choices[0].stop_reason) == ("stop", stop)
        kept = await said(chat(client, stop=stop, include_stop_str_in_output=True, **asked))
        assert kept == whole[: whole.index(stop)] + stop

    async def test_a_stop_string_that_does_not_come_takes_nothing_away(self, client: openai.AsyncOpenAI) -> None:
        asked = {"temperature": 0, "max_tokens": 30}
        whole = await said(chat(client, **asked))
        text, _ = await streamed(chat(client, stop=[whole[-3:] + "?", "upon a table"], stream=True, **asked))
        assert text == whole

    async def test_a_stop_token_ends_the_answer(self, client: openai.AsyncOpenAI, tokenizer: Tokenizer) -> None:
        ids = tokenizer.encode(await said(chat(client, temperature=0, max_tokens=30)))
        answer = await chat(client, temperature=0, max_tokens=30, stop_token_ids=[ids[5]])
        assert answer.usage.completion_tokens == ids.index(ids[5]) + 1
        assert (answer.choices[0].finish_reason, answer.choices[0].stop_reason) == ("stop", ids[5])

    async def test_the_models_end_can_be_ignored(self, client: openai.AsyncOpenAI) -> None:
        answer = await chat(client, "Hello", temperature=0, ignore_eos=True, max_tokens=60)
        assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (60, "length")

    async def test_or_put_off(self, client: openai.AsyncOpenAI) -> None:
        short = await chat(client, "Hello", temperature=0)
        longer = await chat(client, "Hello", temperature=0, min_tokens=40, max_tokens=80)
        assert short.usage.completion_tokens < 40 <= longer.usage.completion_tokens

    async def test_special_tokens_are_shown_on_request(self, client: openai.AsyncOpenAI) -> None:
        asked = {"temperature": 0, "ignore_eos": True, "max_tokens": 60}
        assert "<|end|>" in await said(chat(client, "Hello", skip_special_tokens=False, **asked))
        assert "<|end|>" not in await said(chat(client, "Hello", **asked))

    async def test_max_completion_tokens_wins(self, client: openai.AsyncOpenAI) -> None:
        assert (await chat(client, max_tokens=9, max_completion_tokens=2)).usage.completion_tokens == 2


class TestSampling:
    async def test_one_candidate_is_greedy_however_it_is_said(self, client: openai.AsyncOpenAI) -> None:
        greedy = await said(chat(client, "What is TTFT?", temperature=0))
        for only_one in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
            assert await said(chat(client, "What is TTFT?", temperature=2, **only_one)) == greedy

    async def test_a_token_can_be_forbidden_or_forced(self, client: openai.AsyncOpenAI, tokenizer: Tokenizer) -> None:
        hello, once = tokenizer.encode("Hello")[0], tokenizer.encode("Once")[0]
        assert (await said(chat(client, "Hello", temperature=0))).startswith("Hello")
        assert not (await said(chat(client, "Hello", temperature=0, logit_bias={hello: -100}))).startswith("Hello")
        forced = await said(chat(client, "Hello", temperature=0, logit_bias={once: 100}, max_tokens=3))
        assert forced == "OnceOnceOnce"

    async def test_penalties_keep_it_from_saying_the_same_again(self, client: openai.AsyncOpenAI) -> None:
        def distinct(text: str) -> int:
            return len(set(text.split()))

        asked = {"temperature": 0, "ignore_eos": True, "max_tokens": 80}
        plain = distinct(await said(complete(client, "the the the", **asked)))
        for penalty in ({"frequency_penalty": 2}, {"presence_penalty": 2}, {"repetition_penalty": 2}):
            assert distinct(await said(complete(client, "the the the", **asked, **penalty))) > plain


class TestLogprobs:
    async def test_of_a_chat(self, client: openai.AsyncOpenAI) -> None:
        answer = await chat(client, "Hello", temperature=0, logprobs=True, top_logprobs=3)
        entries = answer.choices[0].logprobs.content
        assert len(entries) == answer.usage.completion_tokens
        assert "".join(entry.token for entry in entries) == answer.choices[0].message.content + "<|end|>"
        for entry in entries:
            assert bytes(entry.bytes).decode() == entry.token
            assert (entry.token, entry.logprob) == (entry.top_logprobs[0].token, entry.top_logprobs[0].logprob)
            logprobs = [one.logprob for one in entry.top_logprobs]
            assert logprobs == sorted(logprobs, reverse=True)
            assert sum(np.exp(logprobs)) <= 1 + 1e-6

    async def test_without_likeliest_tokens_there_are_those_that_were_said(self, client: openai.AsyncOpenAI) -> None:
        answer = await chat(client, "Hello", logprobs=True, max_tokens=4)
        assert [entry.top_logprobs for entry in answer.choices[0].logprobs.content] == [[], [], [], []]

    async def test_of_a_completion(self, client: openai.AsyncOpenAI) -> None:
        answer = await complete(client, logprobs=2, max_tokens=9, seed=5, temperature=1.5)
        logprobs, text = answer.choices[0].logprobs, answer.choices[0].text
        assert "".join(logprobs.tokens) == text
        assert [
            text[at : at + len(token)] for at, token in zip(logprobs.text_offset, logprobs.tokens, strict=True)
        ] == (logprobs.tokens)
        for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
            assert top[token] == logprob
            assert len(top) in (2, 3)

    async def test_nobody_gets_them_who_did_not_ask(self, client: openai.AsyncOpenAI) -> None:
        assert (await chat(client, max_tokens=2)).choices[0].logprobs is None


class TestErrors:
    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"temperature": 2.1}, "temperature"),
            ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
            ({"top_logprobs": 2}, "top_logprobs"),
            ({"logit_bias": {"99999": 1}}, "logit_bias"),
            ({"stop_token_ids": [99999]}, "stop_token_ids"),
            ({"max_tokens": 5000}, "max_tokens"),
            ({"response_format": {"type": "json_object"}}, "response_format"),
        ],
    )
    async def test_what_cannot_be_is_an_error_object(
        self, client: openai.AsyncOpenAI, fields: dict[str, Any], param: str
    ) -> None:
        with pytest.raises(openai.BadRequestError) as error:
            await chat(client, "Hello", **fields)
        assert error.value.param == param
        assert (await chat(client, "Hello", temperature=0)).choices[0].finish_reason == "stop"

    async def test_a_prompt_longer_than_the_context(self, client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="maximum context length is 2048 tokens"):
            await complete(client, [5] * 2048)

    async def test_a_token_that_the_model_does_not_have(self, client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="vocabulary"):
            await complete(client, [5, 99999])

    async def test_a_role_that_the_template_does_not_know(self, client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="knows no role function"):
            await client.chat.completions.create(
                model=MODEL, messages=[{"role": "function", "name": "f", "content": "4"}]
            )


async def test_embeddings_point_the_same_way_for_the_same_text(client: openai.AsyncOpenAI) -> None:
    texts = ["What is TTFT?", "What is TTFT?", "Tell me a story about a fox."]
    answer = await client.embeddings.create(model=MODEL, input=texts)
    first, again, other = (np.array(one.embedding) for one in answer.data)
    assert len(first) == load_model(MODEL).hidden_size
    assert np.linalg.norm(first) == pytest.approx(1.0, abs=1e-5)
    assert first @ again == pytest.approx(1.0, abs=1e-5)
    assert first @ other < 0.99


async def test_of_200_streams_half_are_aborted_and_nothing_is_left_behind() -> None:
    """Few blocks, so that requests wait and are preempted while others go away."""
    service = new_service(num_gpu_blocks=100, max_num_seqs=32)
    moments = random.Random(0)
    async with (
        listening(service, "127.0.0.1", 0) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as client,
    ):

        async def stream(number: int) -> str | None:
            asked = chat(client, f"Count from 1 to {number % 20 + 1}.", stream=True, ignore_eos=True, max_tokens=48)
            if number % 2 == 0:
                return (await streamed(asked))[1][-1].choices[0].finish_reason
            await _go_away(asked, after_chunks=moments.randrange(12), after_s=moments.uniform(0, 2))
            return None

        reasons = await asyncio.gather(*(stream(number) for number in range(200)))
        assert reasons == ["length", None] * 100
        await _until_idle(service)
        status = service.engine.status()
        assert (status.kv_blocks_used, status.running_requests, status.waiting_requests) == (0, 0, 0)
        assert status.completed_requests >= 100
        assert status.aborted_requests >= 30
        assert status.extra["preemptions"] > 0
        assert status.extra["failed_requests"] == 0
        assert await said(chat(client, "What is 3 + 4?", temperature=0)) == "3 + 4 = 7."


async def _go_away(asked: Any, after_chunks: int, after_s: float) -> None:
    """Hang up in the middle of a stream, or without chunks to wait for after a while, which may be in the queue."""
    if after_chunks:
        stream = await asked
        for _ in range(after_chunks):
            await anext(aiter(stream))
        await stream.close()
        return
    asking = asyncio.ensure_future(asked)
    await asyncio.sleep(after_s)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def _until_idle(service: Service, within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while service.engine.status().running_requests + service.engine.status().waiting_requests:
        assert time.monotonic() < deadline_s, service.engine.status()
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.1)


def _content(logprobs: Any) -> list[Any]:
    return [] if logprobs is None else logprobs.content
