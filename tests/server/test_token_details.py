"""What vLLM's clients ask for beside the text, ids of tokens and logprobs of prompts, and what they do to prompts."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.conftest import Client
from server.serving import serving

PROMPT = "Tell me something about the sea."
ASSISTANT = [{"role": "user", "content": "How is the sea?"}, {"role": "assistant", "content": "The sea is"}]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving() as client:
        yield client


async def body_of(request: Any) -> dict[str, Any]:
    async with request as response:
        body: dict[str, Any] = await response.json()
        assert response.status == 200, body
        return body


async def text_of(client: Client, ids: list[int]) -> str:
    async with client.session.post("/detokenize", json={"tokens": ids}) as response:
        return str((await response.json())["prompt"])


class TestTokenIds:
    async def test_of_completions(self, client: Client) -> None:
        body = await body_of(client.complete(prompt=["a b", "c"], n=2, max_tokens=5, return_token_ids=True))
        prompts = [choice["prompt_token_ids"] for choice in body["choices"]]
        assert [await text_of(client, ids) for ids in prompts] == ["a b", "a b", "c", "c"]
        for choice in body["choices"]:
            assert await text_of(client, choice["token_ids"]) == choice["text"]

    async def test_of_the_best_of_several(self, client: Client) -> None:
        body = await body_of(client.complete(prompt=["a b", "c"], n=1, best_of=3, max_tokens=5, return_token_ids=True))
        prompts = [choice["prompt_token_ids"] for choice in body["choices"]]
        assert [await text_of(client, ids) for ids in prompts] == ["a b", "c"]
        for choice in body["choices"]:
            assert await text_of(client, choice["token_ids"]) == choice["text"]

    async def test_of_a_chat(self, client: Client) -> None:
        body = await body_of(client.chat(max_tokens=5, return_token_ids=True))
        assert len(body["prompt_token_ids"]) == body["usage"]["prompt_tokens"]
        (choice,) = body["choices"]
        assert await text_of(client, choice["token_ids"]) == choice["message"]["content"]

    async def test_of_streams(self, client: Client) -> None:
        fields = {"max_tokens": 5, "return_token_ids": True, "stream": True, "stream_options": {"include_usage": True}}
        for request, chat in ((client.chat(**fields), True), (client.complete(prompt=PROMPT, **fields), False)):
            chunks = await client.chunks(request)
            prompt = [chunk if chat else chunk["choices"][0] for chunk in chunks if chunk["choices"]]
            told = [one["prompt_token_ids"] for one in prompt if "prompt_token_ids" in one]
            assert [len(ids) for ids in told] == [chunks[-1]["usage"]["prompt_tokens"]]
            ids = [one for chunk in chunks for choice in chunk["choices"] for one in choice.get("token_ids", [])]
            texts = [
                choice["delta"].get("content", "") if chat else choice["text"]
                for chunk in chunks
                for choice in chunk["choices"]
            ]
            assert (len(ids), await text_of(client, ids)) == (5, "".join(texts))

    async def test_nothing_is_told_unasked(self, client: Client) -> None:
        body = await body_of(client.chat(max_tokens=2))
        assert not {"prompt_token_ids", "prompt_logprobs"} & set(body)
        assert "token_ids" not in body["choices"][0]

    async def test_tokens_called_by_their_ids(self, client: Client) -> None:
        fields = {"prompt": PROMPT, "max_tokens": 3, "logprobs": 2, "seed": 1, "return_token_ids": True}
        named = (await body_of(client.complete(**fields, return_tokens_as_token_ids=True)))["choices"][0]
        assert named["logprobs"]["tokens"] == [f"token_id:{one}" for one in named["token_ids"]]
        assert all(re.fullmatch(r"token_id:\d+", name) for top in named["logprobs"]["top_logprobs"] for name in top)
        plain = (await body_of(client.complete(**fields)))["choices"][0]
        assert plain["logprobs"]["token_logprobs"] == named["logprobs"]["token_logprobs"]
        chat = await body_of(client.chat(max_tokens=1, logprobs=True, return_tokens_as_token_ids=True))
        (entry,) = chat["choices"][0]["logprobs"]["content"]
        assert bytes(entry["bytes"]).decode() == entry["token"] == entry["token"].strip()


class TestPromptLogprobs:
    @pytest.mark.parametrize("top", [0, 1, 3])
    async def test_of_completions(self, client: Client, top: int) -> None:
        body = await body_of(client.complete(prompt=PROMPT, max_tokens=2, prompt_logprobs=top, return_token_ids=True))
        choice = body["choices"][0]
        first, *others = choice["prompt_logprobs"]
        assert first is None
        assert len(others) == len(choice["prompt_token_ids"]) - 1
        for token, likeliest in zip(choice["prompt_token_ids"][1:], others, strict=True):
            assert len(likeliest) == max(1, top)
            assert [one["rank"] for one in likeliest.values()] == list(range(1, len(likeliest) + 1))
            assert likeliest[str(token)]["decoded_token"] == await text_of(client, [token])
            assert all(one["logprob"] < 0 for one in likeliest.values())

    async def test_of_a_chat(self, client: Client) -> None:
        body = await body_of(client.chat(max_tokens=2, prompt_logprobs=1))
        assert len(body["prompt_logprobs"]) == body["usage"]["prompt_tokens"]

    async def test_they_are_not_streamed(self, client: Client) -> None:
        async with client.chat(max_tokens=2, prompt_logprobs=1, stream=True) as response:
            assert (response.status, (await response.json())["error"]["param"]) == (400, "prompt_logprobs")


class TestPrompts:
    async def prompt(self, client: Client, **fields: Any) -> str:
        body = await body_of(client.chat(max_tokens=1, return_token_ids=True, messages=ASSISTANT, **fields))
        return await text_of(client, body["prompt_token_ids"])

    async def test_a_message_that_is_gone_on_with(self, client: Client) -> None:
        assert (await self.prompt(client)).endswith("The sea is\n<|assistant|>\n")
        assert (await self.prompt(client, add_generation_prompt=False)).endswith("The sea is\n")
        going_on = {"add_generation_prompt": False, "continue_final_message": True}
        assert (await self.prompt(client, **going_on)).endswith("The sea is")
        async with client.session.post("/tokenize", json={"messages": ASSISTANT, **going_on}) as response:
            assert (await text_of(client, (await response.json())["tokens"])).endswith("The sea is")
        async with client.chat(messages=ASSISTANT, continue_final_message=True) as response:
            assert (response.status, (await response.json())["error"]["param"]) == (400, "continue_final_message")

    async def test_echo_begins_with_what_was_said_last(self, client: Client) -> None:
        fields = {"messages": ASSISTANT, "max_tokens": 4, "seed": 3, "add_generation_prompt": False}
        fields["continue_final_message"] = True
        bodies = [await body_of(client.chat(**fields, echo=echo)) for echo in (False, True)]
        alone, echoed = [body["choices"][0]["message"]["content"] for body in bodies]
        assert echoed == "The sea is" + alone
        chunks = await client.chunks(client.chat(**fields, echo=True, stream=True))
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == echoed
        asked = await body_of(client.chat(echo=True, max_tokens=4, seed=3))
        assert asked["choices"][0]["message"]["content"].count("say something") == 0

    @pytest.mark.parametrize(
        ("fields", "kept"),
        [
            ({"truncate_prompt_tokens": 3}, [8, 9, 10]),
            ({"truncate_prompt_tokens": 3, "truncation_side": "right"}, [1, 2, 3]),
            ({"truncate_prompt_tokens": 30}, list(range(1, 11))),
            ({"truncate_prompt_tokens": -1}, list(range(1, 11))),
        ],
    )
    async def test_prompts_are_cut(self, client: Client, fields: dict[str, Any], kept: list[int]) -> None:
        body = await body_of(client.complete(prompt=list(range(1, 11)), max_tokens=1, return_token_ids=True, **fields))
        assert body["choices"][0]["prompt_token_ids"] == kept

    async def test_a_prompt_that_is_too_long_is_cut_to_what_fits(self, client: Client) -> None:
        body = await body_of(client.complete(prompt=[5] * 3000, max_tokens=48, truncate_prompt_tokens=-1))
        assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (2000, 48)

    @pytest.mark.parametrize(("most", "tokens"), [(-1, 2047), (7, 7)])
    async def test_texts_to_embed_are_cut(self, client: Client, most: int, tokens: int) -> None:
        fields = {"input": "word " * 3000, "truncate_prompt_tokens": most}
        body = await body_of(client.session.post("/v1/embeddings", json=fields))
        assert body["usage"]["prompt_tokens"] == tokens

    async def test_documents_are_cut(self, client: Client) -> None:
        for path, name in (("/rerank", "query"), ("/score", "text_1")):
            fields = {name: "a word", "documents": ["word " * 3000], "truncate_prompt_tokens": -1}
            body = await body_of(client.session.post(path, json=fields))
            assert body["usage"]["prompt_tokens"] == 2047


async def test_a_request_id_in_the_body(client: Client) -> None:
    assert (await body_of(client.chat(max_tokens=1, request_id="job-7")))["id"] == "chatcmpl-job-7"
    async with client.chat(max_tokens=1, request_id="no spaces") as response:
        assert (response.status, (await response.json())["error"]["param"]) == (400, "request_id")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"guided_choice": ["red"]}, "red"),
        ({"guided_regex": "x{3}"}, "xxx"),
        ({"guided_json": {"const": 7}}, "7"),
        ({"guided_json": '{"const": 8}', "guided_choice": None}, "8"),
    ],
)
async def test_guides_by_their_older_names(client: Client, fields: dict[str, Any], expected: str) -> None:
    assert (await body_of(client.chat(**fields)))["choices"][0]["message"]["content"] == expected


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/embeddings", {"input": "x"}),
        ("/rerank", {"query": "x", "documents": ["y"]}),
        ("/score", {"text_1": "x", "text_2": "y"}),
    ],
)
async def test_what_is_only_read_has_its_times_too(client: Client, path: str, fields: dict[str, Any]) -> None:
    async with client.session.post(path, json=fields) as response:
        assert float(response.headers["x-simserve-e2e-ms"]) == float(response.headers["x-simserve-ttft-ms"]) > 0
