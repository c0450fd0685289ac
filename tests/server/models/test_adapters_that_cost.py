"""LoRA adapters of engines with ``enable_lora``: they are loaded, take slots and time, and are counted."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from server.conftest import Client
from server.serving import serving, settings
from simserve.errors import ConfigError
from simserve.server.models.make import pool_of
from simserve.workload import read_trace

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
PLAIN = """
engine: {time_scale: .inf}
models: {available: {base: {path: facebook/opt-125m}}}
"""
ABLE = PLAIN.replace(".inf", ".inf, enable_lora: true, max_loras: 2, lora_load_ms: 700")
NAMED = ABLE.replace("models: {", "models: {lora_modules: [sql=org/sql, law=org/law], ")
CLUSTER = ABLE.replace("{available: {base: {path: facebook/opt-125m}}}", "{default: facebook/opt-125m}") + (
    "cluster: {replicas: 2, router: round-robin}\n"
)


async def load(client: Client, name: str, **more: Any) -> int:
    body = {"lora_name": name, "lora_path": f"org/{name}", **more}
    async with client.session.post(LOAD, json=body) as response:
        return int(response.status)


async def ask(client: Client, model: str) -> None:
    async with client.complete(model=model, max_tokens=5) as response:
        assert response.status == 200, await response.text()


async def lora(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/status"))["lora"]
    return found


async def first_tokens_s(client: Client) -> float:
    """The sum of all times to first token so far, in simulated seconds."""
    page = await metrics(client)
    lines = re.findall(r"^vllm:time_to_first_token_seconds_sum\S* (\S+)$", page, re.MULTILINE)
    return sum(map(float, lines))


async def metrics(client: Client) -> str:
    async with client.session.get("/metrics") as response:
        return str(await response.text())


async def test_where_they_are_not_enabled_they_cost_nothing() -> None:
    async with serving(PLAIN) as client:
        assert await load(client, "sql") == 200
        await ask(client, "sql")
        await ask(client, "base")
        assert "lora" not in await client.get("/status")
        assert "lora_requests_info" not in await metrics(client)
        assert await first_tokens_s(client) < 0.5


async def test_the_next_step_waits_for_one_that_is_loaded_and_later_ones_find_it() -> None:
    async with serving(ABLE) as client:
        assert await load(client, "sql") == 200
        assert (await lora(client))["loads"] == 1
        await ask(client, "sql")
        first_s = await first_tokens_s(client)
        assert 0.7 < first_s < 1.4
        await ask(client, "sql")
        await ask(client, "base")
        assert await first_tokens_s(client) - first_s < 0.5
        assert (await lora(client))["loads"] == 1
        assert (await lora(client))["load_s"] > 0.7


async def test_the_least_recently_used_makes_room() -> None:
    async with serving(ABLE) as client:
        for name in ("sql", "law", "art"):
            await load(client, name)
        assert (await lora(client))["loads"] == 3
        await ask(client, "art")
        await ask(client, "law")
        assert (await lora(client))["loads"] == 3
        await ask(client, "sql")
        assert (await lora(client))["loads"] == 4


async def test_loaded_again_is_another_one() -> None:
    async with serving(ABLE) as client:
        await load(client, "sql")
        await load(client, "sql", load_inplace=True)
        assert (await lora(client))["loads"] == 2
        async with client.session.post(UNLOAD, json={"lora_name": "sql"}) as response:
            assert response.status == 200
        await load(client, "sql")
        await ask(client, "sql")
        assert (await lora(client))["loads"] == 3


async def test_modules_are_there_from_the_start_and_nobody_waits() -> None:
    async with serving(NAMED) as client:
        assert (await client.get("/v1/models/law"))["parent"] == "base"
        assert (await lora(client))["loads"] == 2
        await ask(client, "sql")
        await ask(client, "law")
        assert (await lora(client))["loads"] == 2
        assert await first_tokens_s(client) < 0.7


async def test_metrics_say_who_is_in_use_as_vllm_does() -> None:
    async with serving(NAMED.replace(".inf", "1").replace("max_loras: 2", "max_loras: 1")) as client:

        async def talk(model: str) -> None:
            async with client.complete(model=model, max_tokens=2000, stream=True) as response:
                await response.read()

        talks = [asyncio.create_task(talk(model)) for model in ("sql", "law")]
        while True:
            page = await metrics(client)
            found = re.search(r"^vllm:lora_requests_info{(.*)} \S+$", page, re.MULTILINE)
            assert found
            labels = dict(re.findall(r'(\w+)="([^"]*)"', found[1]))
            if labels["running_lora_adapters"] and labels["waiting_lora_adapters"]:
                break
            await asyncio.sleep(0.01)
        assert {labels["running_lora_adapters"], labels["waiting_lora_adapters"]} == {"sql", "law"}
        assert labels["max_lora"] == "1"
        for one in talks:
            one.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


async def test_the_trace_names_them(tmp_path: Any) -> None:
    async with serving(NAMED) as client:
        for model in ("sql", "base", "law", "sql"):
            await ask(client, model)
        async with client.session.get("/trace") as response:
            text = await response.text()
    assert [json.loads(line).get("adapter") for line in text.splitlines()] == ["sql", None, "law", "sql"]
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    workload = read_trace(str(path))
    assert workload.adapters is not None
    assert workload.adapters.tolist() == [1, 0, 2, 1]


async def test_each_replica_of_a_cluster_has_its_own() -> None:
    async with serving(CLUSTER) as client:
        assert await load(client, "sql") == 200
        for _ in range(4):
            await ask(client, "sql")
        replicas = (await client.get("/status"))["replicas"]
        assert [replica["lora"]["loads"] for replica in replicas] == [1, 1]
        assert len(re.findall(r"^vllm:lora_requests_info{", await metrics(client), re.MULTILINE)) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (NAMED.replace("enable_lora: true, max_loras: 2, lora_load_ms: 700", ""), "has no adapters"),
        (NAMED.replace("sql=org/sql", "sql"), "'sql' is no adapter; write name=path"),
        (NAMED.replace("sql=org/sql", '\'{"name": "x"}\''), "is no adapter; write"),
        (NAMED.replace("sql=org/sql", "base=org/sql"), "conflicts with a served base model"),
        (NAMED.replace("sql=org/sql", "law=org/sql"), "has already been loaded"),
        (NAMED.replace("sql=org/sql", "sql=/nowhere/at/all"), "No adapter found"),
        (PLAIN.replace(".inf", ".inf, max_loras: 2"), "needs"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        pool_of(settings(text))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_module_in_json_names_its_model() -> None:
    module = '\'{"name": "sql", "path": "org/sql", "base_model_name": "base"}\''
    pool = pool_of(settings(NAMED.replace("sql=org/sql", module)))
    assert [adapter.name for adapter in pool.adapters.all()] == ["sql", "law"]
