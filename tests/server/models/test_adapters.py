"""LoRA adapters by vLLM's rules: a name for a model that comes and goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.conftest import Client
from server.serving import serving

TWO = """
engine: {time_scale: .inf}
models: {max_loaded: 1, available: {base: {path: facebook/opt-125m}, other: {path: facebook/opt-125m}}}
"""
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving(TWO) as client:
        yield client


async def post(client: Client, path: str, **body: Any) -> tuple[int, Any]:
    async with client.session.post(path, json=body) as response:
        plain = response.content_type == "text/plain"
        return response.status, await (response.text() if plain else response.json())


async def answer(client: Client, model: str, **fields: Any) -> dict[str, Any]:
    async with client.complete(model=model, seed=1, max_tokens=20, **fields) as response:
        body: dict[str, Any] = await response.json()
        return body


async def test_an_adapter_is_a_model_of_its_own_name(client: Client) -> None:
    said = await post(client, LOAD, lora_name="sql", lora_path="org/sql-lora")
    assert said == (200, "Success: LoRA adapter 'sql' added successfully.")
    card = await client.get("/v1/models/sql")
    assert (card["root"], card["parent"], card["max_model_len"]) == ("org/sql-lora", "base", 2048)
    body = await answer(client, "sql")
    assert body["model"] == "sql"
    assert body["choices"][0]["text"] != (await answer(client, "base"))["choices"][0]["text"]
    assert body["choices"][0]["text"] == (await answer(client, "sql"))["choices"][0]["text"]

    said = await post(client, UNLOAD, lora_name="sql")
    assert said == (200, "Success: LoRA adapter 'sql' removed successfully.")
    assert (await answer(client, "sql"))["error"]["code"] == "model_not_found"


async def test_adapters_share_no_prefix_with_their_model_or_each_other(client: Client) -> None:
    for name in ("sql", "law"):
        await post(client, LOAD, lora_name=name, lora_path=f"org/{name}")
    prompt = "a prompt of several blocks of tokens " * 20
    cached = {}
    for name in ("base", "sql", "law", "sql", "base"):
        usage = (await answer(client, name, prompt=prompt))["usage"]
        cached.setdefault(name, []).append(usage["prompt_tokens_details"]["cached_tokens"])
    assert cached["law"] == [0]
    assert cached["sql"][0] == cached["base"][0] == 0
    assert cached["sql"][1] == cached["base"][1] > 0


async def test_an_adapter_of_another_model(client: Client) -> None:
    await post(client, LOAD, lora_name="sql", lora_path="org/sql", base_model_name="other")
    assert (await client.get("/v1/models/sql"))["parent"] == "other"
    assert (await answer(client, "sql"))["model"] == "sql"
    assert [model["state"] for model in (await client.get("/status"))["models"]] == ["unloaded", "loaded"]


async def test_an_adapter_in_a_folder_must_be_one(client: Client, tmp_path: Path) -> None:
    status, body = await post(client, LOAD, lora_name="sql", lora_path=str(tmp_path))
    assert status == 404
    assert body["error"]["message"].startswith(f"Loading lora sql failed: No adapter found for {tmp_path}")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert (await post(client, LOAD, lora_name="sql", lora_path=str(tmp_path)))[0] == 200


async def test_loaded_twice_only_in_place(client: Client) -> None:
    await post(client, LOAD, lora_name="sql", lora_path="org/one")
    status, body = await post(client, LOAD, lora_name="sql", lora_path="org/two")
    assert status == 400
    assert body["error"]["message"].startswith("The lora adapter 'sql' has already been loaded.")
    assert (await post(client, LOAD, lora_name="sql", lora_path="org/two", load_inplace=True))[0] == 200
    assert (await client.get("/v1/models/sql"))["root"] == "org/two"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        (LOAD, {"lora_name": "sql"}, 400, "Both 'lora_name' and 'lora_path' must be provided."),
        (LOAD, {"lora_path": "org/sql"}, 400, "Both 'lora_name' and 'lora_path' must be provided."),
        (LOAD, {"lora_name": "base", "lora_path": "org/x"}, 400, "conflicts with a served base model"),
        (LOAD, {"lora_name": "x", "lora_path": "org/x", "base_model_name": "y"}, 404, "`y` does not exist"),
        (LOAD, {"lora_name": 5, "lora_path": "org/x"}, 400, "Invalid `lora_name`"),
        (UNLOAD, {}, 400, "'lora_name' needs to be provided to unload a LoRA adapter."),
        (UNLOAD, {"lora_name": "sql"}, 404, "The lora adapter 'sql' cannot be found."),
        (UNLOAD, {"lora_name": "base"}, 404, "The lora adapter 'base' cannot be found."),
    ],
)
async def test_what_is_refused(client: Client, path: str, body: dict[str, Any], status: int, said: str) -> None:
    got, answered = await post(client, path, **body)
    assert got == status
    assert said in answered["error"]["message"]
