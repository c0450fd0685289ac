"""Tokens of texts and texts of tokens; how well texts match a question."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.conftest import Client
from server.serving import serving

TEXTS = ["The cat sleeps on the mat.", "Stocks fell sharply on Monday.", "A cat on a mat, asleep."]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving() as client:
        yield client


async def post(client: Client, path: str, **fields: Any) -> dict[str, Any]:
    async with client.session.post(path, json=fields) as response:
        body: dict[str, Any] = await response.json()
        assert response.status == 200, body
        return body


async def test_tokenize_agrees_with_usage_and_detokenize_goes_back(client: Client) -> None:
    text = "Tell me something about the sea."
    tokens = await post(client, "/tokenize", prompt=text, return_token_strs=True)
    assert (tokens["count"], tokens["max_model_len"]) == (len(tokens["tokens"]), 2048)
    assert len(tokens["token_strs"]) == tokens["count"]
    assert (await post(client, "/detokenize", tokens=tokens["tokens"])) == {"prompt": text}
    async with client.complete(prompt=text, max_tokens=1) as response:
        assert (await response.json())["usage"]["prompt_tokens"] == tokens["count"]


async def test_tokenize_a_chat(client: Client) -> None:
    messages = [{"role": "user", "content": "say something"}]
    tool = {"type": "function", "function": {"name": "f"}}
    for more in ({}, {"tools": [tool]}):
        counted = await post(client, "/tokenize", messages=messages, **more)
        async with client.chat(max_tokens=1, **more) as response:
            assert (await response.json())["usage"]["prompt_tokens"] == counted["count"]
    assert counted["token_strs"] is None


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_documents_are_ranked(client: Client, path: str) -> None:
    body = await post(client, path, query="Where does the cat sleep?", documents=[*TEXTS, {"text": "cat"}], top_n=3)
    scores = [result["relevance_score"] for result in body["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3
    assert [result["index"] for result in body["results"][:2]] == [0, 2]
    assert all(result["document"]["text"] for result in body["results"])
    assert body["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
async def test_pairs_are_scored(client: Client, path: str) -> None:
    one = await post(client, path, text_1="The cat sleeps on the mat.", text_2=TEXTS)
    assert [entry["index"] for entry in one["data"]] == [0, 1, 2]
    assert one["data"][0]["score"] == pytest.approx(1)
    assert one["data"][1]["score"] < one["data"][2]["score"] < 1
    pairs = await post(client, path, queries=TEXTS, documents=TEXTS)
    assert [entry["score"] for entry in pairs["data"]] == pytest.approx([1, 1, 1])


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": []}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0"),
        ("/rerank", {"query": "a", "documents": []}, "documents"),
        ("/rerank", {"query": "a", "documents": [7]}, "documents"),
        ("/rerank", {"query": "", "documents": ["a"]}, "query"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["a"]}, "text_1"),
        ("/score", {"text_1": "a", "text_2": "word " * 3000}, "text_2"),
    ],
)
async def test_what_makes_no_sense_is_refused(client: Client, path: str, fields: dict[str, Any], param: str) -> None:
    async with client.session.post(path, json=fields) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == param
