"""The OpenAPI document: every endpoint is in it, and it says what is checked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest

from server.conftest import Client
from server.serving import serving


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving() as client:
        yield client


@pytest.fixture
async def document(client: Client) -> dict[str, Any]:
    described: dict[str, Any] = await client.get("/openapi.json")
    return described


def body_schema(document: dict[str, Any], path: str) -> dict[str, Any]:
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    return {**content["schema"], "components": document["components"]}


async def test_every_operation_has_its_own_id_and_a_purpose(document: dict[str, Any]) -> None:
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations) > 40
    assert all(one["summary"] for one in operations)
    assert {"/v1/chat/completions", "/v1/responses", "/metrics", "/rerank", "/admin/config"} <= set(document["paths"])


@pytest.mark.parametrize(
    ("path", "body", "is_valid"),
    [
        ("/v1/completions", {"prompt": "a"}, True),
        ("/v1/completions", {"prompt": [1, 2]}, True),
        ("/v1/completions", {"prompt": {"a": 1}}, False),
        ("/v1/completions", {"prompt": "a", "stop": ["x"], "logit_bias": {"5": -100}}, True),
        ("/v1/completions", {"prompt": "a", "temperature": 3}, False),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, True),
        ("/v1/chat/completions", {"messages": []}, False),
        ("/v1/responses", {"input": "x"}, True),
        ("/v1/embeddings", {"input": ["a", "b"]}, True),
    ],
)
async def test_the_schemas_say_what_the_server_does(
    client: Client, document: dict[str, Any], path: str, body: dict[str, Any], is_valid: bool
) -> None:
    assert jsonschema.Draft202012Validator(body_schema(document, path)).is_valid(body) == is_valid
    async with client.session.post(path, json=body) as response:
        assert (response.status == 200) == is_valid
