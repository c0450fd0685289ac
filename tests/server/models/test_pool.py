"""Models come when they are asked for and go when their place is needed; nobody is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from server.conftest import Client
from server.fakes import NumberedWords, ScriptedEngine, WordTokenizer
from server.test_disconnect import until
from simserve.errors import ModelError
from simserve.server.embeddings import SimulatedEmbedder
from simserve.server.models import Loadable, ModelPool, PoolLimits
from simserve.server.run import listening
from simserve.server.service import Service
from simserve.server.simulated_plans import SimulatedPlanner


class Maker:
    """Makes scripted models and remembers which engines it made and which of them still run."""

    def __init__(self, load_s: float = 0.0) -> None:
        self.load_s = load_s
        self.loads: list[str] = []
        self.engines: dict[str, ScriptedEngine] = {}
        self.broken: set[str] = set()
        self.step_s = 0.0

    def model(self, name: str) -> Loadable:
        async def load() -> Service:
            self.loads.append(name)
            if name in self.broken:
                raise ModelError("its file is torn")
            engine = self.engines[name] = ScriptedEngine(step_s=self.step_s)
            planner = SimulatedPlanner(name, WordTokenizer(), NumberedWords(), engine.max_model_len, vocab_size=1000)
            return Service(engine, planner, SimulatedEmbedder(engine, 8), [name], f"org/{name}")

        return Loadable((name,), f"org/{name}", 256, load, over=lambda engine: None, load_s=self.load_s)

    def pool(self, names: str, preload: str = "", **limits: Any) -> ModelPool:
        return ModelPool([self.model(name) for name in names], list(preload), PoolLimits(**limits))


@asynccontextmanager
async def serving(pool: ModelPool) -> AsyncIterator[Client]:
    async with listening(pool, "127.0.0.1", 0) as url, aiohttp.ClientSession(url) as session:
        yield Client(session)


async def ask(client: Client, model: str | None, tokens: int = 1) -> dict[str, Any]:
    async with client.chat(model=model, max_tokens=tokens) as response:
        return {"status": response.status, "retry": response.headers.get("Retry-After"), **await response.json()}


async def states(client: Client) -> dict[str, str]:
    return {model["id"]: model["state"] for model in (await client.get("/status"))["models"]}


async def test_a_model_is_loaded_when_it_is_asked_for_and_once() -> None:
    maker = Maker(load_s=0.05)
    async with serving(maker.pool("abc", preload="a")) as client:
        assert await states(client) == {"a": "loaded", "b": "unloaded", "c": "unloaded"}
        answers = await asyncio.gather(*(ask(client, "b") for _ in range(5)))
        assert [answer["status"] for answer in answers] == [200] * 5
        assert (await ask(client, None))["model"] == "a"
    assert maker.loads == ["a", "b"]


async def test_a_cold_start_takes_its_time_and_others_go_on_meanwhile() -> None:
    maker = Maker(load_s=0.3)
    async with serving(maker.pool("ab", preload="a")) as client:
        cold = asyncio.create_task(ask(client, "b"))
        await until(lambda: maker.loads == ["a", "b"])
        assert (await states(client))["b"] == "loading"
        assert (await ask(client, "a"))["status"] == 200
        assert not cold.done()
        assert (await cold)["status"] == 200


async def test_the_one_not_used_for_longest_makes_room() -> None:
    maker = Maker()
    async with serving(maker.pool("abc", max_loaded=2)) as client:
        for name in "abac":
            assert (await ask(client, name))["status"] == 200
        assert await states(client) == {"a": "loaded", "b": "unloaded", "c": "loaded"}
        assert maker.engines["b"].stopping
        assert not maker.engines["a"].stopping


async def test_a_model_in_use_is_not_unloaded_while_another_one_is_free() -> None:
    maker = Maker()
    maker.step_s = 0.02
    async with serving(maker.pool("abc", max_loaded=2)) as client:
        await ask(client, "a")
        long = asyncio.create_task(ask(client, "a", tokens=30))
        await until(lambda: maker.engines["a"].running)
        await ask(client, "b")
        await ask(client, "c")
        assert await states(client) == {"a": "loaded", "b": "unloaded", "c": "loaded"}
        assert (await long)["usage"]["completion_tokens"] == 30


async def test_requests_in_flight_are_never_cut_off() -> None:
    maker = Maker()
    maker.step_s = 0.02
    async with serving(maker.pool("ab", max_loaded=1)) as client:
        long = asyncio.create_task(ask(client, "a", tokens=20))
        await until(lambda: "a" in maker.engines and maker.engines["a"].running)
        other = asyncio.create_task(ask(client, "b"))
        await until(lambda: maker.loads == ["a"])
        await asyncio.sleep(0.05)
        again = asyncio.create_task(ask(client, "a"))
        assert (await states(client))["a"] == "draining"
        assert (await long)["usage"]["completion_tokens"] == 20
        assert (await other)["status"] == 200
        assert (await again)["status"] == 200
    assert maker.loads == ["a", "b", "a"]


async def test_any_mix_of_requests_is_served_with_one_place() -> None:
    maker = Maker(load_s=0.005)
    maker.step_s = 0.001
    async with serving(maker.pool("abcd", max_loaded=1)) as client:
        answers = await asyncio.gather(*(ask(client, "abcd"[at % 4], tokens=1 + at % 7) for at in range(40)))
        assert [answer["usage"]["completion_tokens"] for answer in answers] == [1 + at % 7 for at in range(40)]
        assert [answer["model"] for answer in answers] == ["abcd"[at % 4] for at in range(40)]


async def test_who_waits_too_long_gets_503_and_the_load_goes_on() -> None:
    maker = Maker(load_s=0.2)
    async with serving(maker.pool("ab", preload="a", load_timeout_s=0.05)) as client:
        refused = await ask(client, "b")
        assert (refused["status"], refused["retry"]) == (503, "5")
        assert refused["error"]["message"] == "The model `b` is not loaded yet; try again."
        await asyncio.sleep(0.25)
        assert (await ask(client, "b"))["status"] == 200
    assert maker.loads == ["a", "b"]


async def test_a_client_that_hangs_up_while_it_waits_leaves_nothing_behind() -> None:
    maker = Maker(load_s=0.1)
    async with serving(maker.pool("ab", preload="a")) as client:
        waiting = asyncio.create_task(ask(client, "b"))
        await until(lambda: "b" in maker.loads)
        waiting.cancel()
        await asyncio.sleep(0.15)
        status = await client.get("/status")
    assert [(model["state"], model["requests"]) for model in status["models"]] == [("loaded", 0)] * 2


async def test_an_unused_model_goes_after_a_while_and_a_used_one_does_not() -> None:
    maker = Maker()
    maker.step_s = 0.02
    async with serving(maker.pool("ab", preload="ab", unload_timeout_s=0.15)) as client:
        long = asyncio.create_task(ask(client, "a", tokens=20))
        await until(lambda: maker.engines["b"].stopping)
        assert await states(client) == {"a": "loaded", "b": "unloaded"}
        assert (await long)["usage"]["completion_tokens"] == 20
        await until(lambda: maker.engines["a"].stopping)
        assert (await ask(client, "a"))["status"] == 200


async def test_a_model_that_cannot_be_loaded_is_an_error_and_may_be_tried_again() -> None:
    maker = Maker()
    maker.broken = {"b"}
    async with serving(maker.pool("ab", preload="a", max_loaded=2)) as client:
        failed = await ask(client, "b")
        assert failed["status"] == 500
        assert failed["error"]["message"] == "The model `b` cannot be loaded: its file is torn"
        maker.broken = set()
        assert (await ask(client, "b"))["status"] == 200


async def test_a_malformed_request_loads_nothing() -> None:
    maker = Maker()
    async with serving(maker.pool("ab", preload="a")) as client:
        async with client.chat(model="b", max_tokens=0) as response:
            assert response.status == 400
        async with client.chat(model="z") as response:
            assert response.status == 404
    assert maker.loads == ["a"]


@pytest.mark.parametrize("loaded", [0, 1, 2])
async def test_the_server_stops_whatever_its_models_are_doing(loaded: int) -> None:
    maker = Maker(load_s=30)
    body = {"model": "c", "messages": [{"role": "user", "content": "hi"}]}
    async with asyncio.timeout(5), aiohttp.ClientSession() as session:
        async with listening(maker.pool("abc", preload="ab"[:loaded]), "127.0.0.1", 0) as url:
            waiting = asyncio.create_task(session.post(f"{url}/v1/chat/completions", json=body))
            await until(lambda: "c" in maker.loads)
        assert (await waiting).status == 503
