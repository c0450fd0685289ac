"""A real model and a simulated one behind the same endpoint, with room for one of them."""

from __future__ import annotations

from typing import Any

import pytest

from server.conftest import Client
from server.serving import serving

pytest.importorskip("torch", reason="the real engine needs torch: pip install simserve[torch]")

BOTH = """
engine: {device: cpu, threads: 1}
models:
  max_loaded: 1
  available:
    simulated: {path: facebook/opt-125m}
    real: {path: simserve/tiny-chat, type: torch, max_tokens: 500}
"""


async def say(client: Client, model: str, **fields: Any) -> dict[str, Any]:
    async with client.chat(model=model, max_tokens=4, temperature=0, **fields) as response:
        body: dict[str, Any] = await response.json()
        return body


async def test_each_is_loaded_when_it_is_asked_for_and_answers_as_it_can() -> None:
    async with serving(BOTH) as client:
        cards = {card["id"]: card for card in (await client.get("/v1/models"))["data"]}
        assert (cards["real"]["root"], cards["real"]["max_model_len"]) == ("simserve/tiny-chat", 500)
        real = await say(client, "real", logprobs=True)
        assert [model["state"] for model in (await client.get("/admin/models"))["models"]] == ["unloaded", "loaded"]
        assert len(real["choices"][0]["logprobs"]["content"]) == 4
        as_json = {"type": "json_object"}
        error = (await say(client, "real", response_format=as_json))["error"]
        assert "not supported by the torch engine" in error["message"]
        assert "error" not in await say(client, "simulated", response_format=as_json)
        assert (await say(client, "simulated"))["usage"]["completion_tokens"] == 4
        again = await say(client, "real", logprobs=True)
        assert again["choices"] == real["choices"]


async def test_a_real_model_has_no_adapters() -> None:
    body = {"lora_name": "x", "lora_path": "org/x", "base_model_name": "real"}
    async with serving(BOTH) as client, client.session.post("/v1/load_lora_adapter", json=body) as response:
        assert response.status == 400
        assert "which has no LoRA adapters" in (await response.json())["error"]["message"]
