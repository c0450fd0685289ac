"""Several models behind one endpoint: each has its own clock, sleep, trace and figures, and ``?model=`` says whose."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.conftest import Client
from server.serving import serving

THREE = """
engine: {time_scale: .inf}
models:
  preload: [base, other]
  available:
    base: {path: facebook/opt-125m, aliases: [basis]}
    other: {path: facebook/opt-125m}
    absent: {path: facebook/opt-125m}
"""


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving(THREE) as client:
        yield client


async def post(client: Client, path: str, **query: str) -> tuple[int, Any]:
    async with client.session.post(path, params=query) as response:
        return response.status, await response.json()


async def tokens_of(client: Client) -> dict[str, float]:
    """Generated tokens by the model's name, as the metrics say."""
    async with client.session.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    counted = [line for line in lines if line.startswith("vllm:generation_tokens_total{")]
    return {line.split('model_name="')[1].split('"')[0]: float(line.split()[-1]) for line in counted}


async def complete(client: Client, model: str, tokens: int) -> None:
    async with client.complete(model=model, max_tokens=tokens) as response:
        assert response.status == 200, await response.text()


async def test_metrics_tell_the_models_in_memory_apart(client: Client) -> None:
    await complete(client, "basis", 3)
    await complete(client, "other", 5)
    assert await tokens_of(client) == {"base": 3, "other": 5}
    await complete(client, "absent", 2)
    assert await tokens_of(client) == {"base": 3, "other": 5, "absent": 2}
    assert (await post(client, "/admin/models/unload"))[0] == 400
    async with client.session.post("/admin/models/unload", json={"model": "other"}):
        assert await tokens_of(client) == {"base": 3, "absent": 2}


async def test_what_an_adapter_does_is_counted_once_and_for_its_model(client: Client) -> None:
    async with client.session.post("/v1/load_lora_adapter", json={"lora_name": "sql", "lora_path": "org/sql"}) as said:
        assert said.status == 200
    await complete(client, "sql", 4)
    await complete(client, "sql", 4)
    assert await tokens_of(client) == {"base": 8, "other": 0}
    async with client.session.get("/trace?model=sql") as response:
        rows = [json.loads(line) for line in (await response.text()).splitlines()]
    assert [row["output_tokens"] for row in rows] == [4, 4]


async def test_each_has_a_clock_of_its_own_and_the_default_one_is_meant_if_none_is_named(client: Client) -> None:
    assert (await post(client, "/clock/pause", model="other"))[1]["paused"] is True
    assert (await client.get("/clock?model=other"))["paused"] is True
    for default in ("/clock", "/clock?model=base", "/clock?model=basis"):
        assert (await client.get(default))["paused"] is False
    status = await client.get("/status")
    assert [one.get("paused") for one in status["models"]] == [False, True, None]


async def test_one_sleeps_and_the_others_answer(client: Client) -> None:
    assert await post(client, "/sleep", model="other") == (200, {"status": "sleeping"})
    assert (await client.get("/is_sleeping?model=other"), await client.get("/is_sleeping")) == (
        {"is_sleeping": True},
        {"is_sleeping": False},
    )
    await complete(client, "base", 2)
    assert await post(client, "/wake_up", model="other") == (200, {"status": "awake"})
    await complete(client, "other", 2)


@pytest.mark.parametrize("path", ["/sleep", "/wake_up", "/clock/pause", "/reset_prefix_cache"])
async def test_none_is_loaded_to_be_switched_and_unknown_ones_are_404(client: Client, path: str) -> None:
    status, body = await post(client, path, model="absent")
    assert (status, body["error"]["param"]) == (409, "model")
    assert (await post(client, path, model="nobody"))[0] == 404
    assert (await client.get("/admin/models"))["models"][2]["state"] == "unloaded"


async def test_the_dashboard_shows_the_model_that_is_named_until_it_is_unloaded(client: Client) -> None:
    async with client.session.get("/dashboard/events?model=other") as response:
        first = json.loads((await response.content.readline()).removeprefix(b"data: "))
        assert first["about"]["model"] == "facebook/opt-125m"
        async with client.session.post("/admin/models/unload", json={"model": "other"}) as said:
            assert said.status == 200
        await response.read()
    async with client.session.get("/dashboard/events?model=other") as response:
        assert response.status == 409
