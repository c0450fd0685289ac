"""Embeddings: vectors of length 1 that depend on the text alone, at the time at which the engine has read it."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from server.conftest import Client
from server.fakes import ScriptedEngine
from server.test_errors import error_of


def embed(client: Client, **fields: Any) -> Any:
    return client.session.post("/v1/embeddings", json={"input": "once upon a time", **fields})


async def vectors_of(client: Client, **fields: Any) -> list[np.ndarray[Any, Any]]:
    async with embed(client, **fields) as response:
        assert response.status == 200, await response.text()
        return [np.array(one["embedding"]) for one in (await response.json())["data"]]


async def test_a_conversation_is_embedded_as_one_text(client: Client) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "say something"}]}]
    async with client.session.post("/v1/embeddings", json={"messages": messages}) as response:
        body = await response.json()
    assert (response.status, len(body["data"]), body["usage"]["prompt_tokens"]) == (200, 1, 3)
    for fields in ({"messages": messages, "input": "x"}, {}, {"messages": []}):
        async with client.session.post("/v1/embeddings", json=fields) as response:
            assert response.status == 400


async def test_a_vector_of_length_1_for_each_text(client: Client, engine: ScriptedEngine) -> None:
    async with embed(client, input=["a b c", "d e"]) as response:
        body = await response.json()
    assert [one["index"] for one in body["data"]] == [0, 1]
    assert (body["object"], body["model"]) == ("list", "test-model")
    assert body["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    for one in body["data"]:
        assert np.linalg.norm(one["embedding"]) == pytest.approx(1.0)
        assert len(one["embedding"]) == 8
    assert [request.max_tokens for request in engine.submitted] == [1, 1]


async def test_the_same_text_has_the_same_vector_and_another_one_another(client: Client) -> None:
    first, again, other = await vectors_of(client, input=["one text", "one text", "another text"])
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


async def test_token_ids_are_texts_too(client: Client) -> None:
    from_text, from_ids = [await vectors_of(client, input=one) for one in ("ab abc", [2, 3])]
    assert np.array_equal(from_text, from_ids)


async def test_base64_is_the_same_numbers(client: Client) -> None:
    (numbers,) = await vectors_of(client)
    async with embed(client, encoding_format="base64") as response:
        packed = base64.b64decode((await response.json())["data"][0]["embedding"])
    assert np.array_equal(np.frombuffer(packed, "<f4"), numbers.astype("<f4"))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [[5, 1000]]}, "input"),
        ({"input": [1] * 300}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 4}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
    ],
)
async def test_wrong_fields_are_named(client: Client, fields: dict[str, Any], param: str) -> None:
    error = await error_of(embed(client, **fields), 400)
    assert error["param"] == param


async def test_the_models_own_number_of_dimensions_may_be_said(client: Client) -> None:
    assert len(await vectors_of(client, dimensions=8)) == 1


async def test_another_model_does_not_exist(client: Client) -> None:
    await error_of(embed(client, model="gpt-9"), 404)
