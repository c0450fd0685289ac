"""The switches of a server: clock, sleep, prefix cache, and what tells how it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

import simserve
from server.conftest import Client
from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.server.run import listening
from simserve.server.service import Service
from simserve.server.simulated import simulated_service


@dataclass
class Server:
    session: aiohttp.ClientSession
    service: Service

    async def get(self, path: str) -> dict[str, Any]:
        async with self.session.get(path) as response:
            assert response.status == 200, await response.text()
            return dict(await response.json())

    async def post(self, path: str, status: int = 200, **more: Any) -> dict[str, Any]:
        async with self.session.post(path, **more) as response:
            assert response.status == status, await response.text()
            return dict(await response.json())

    async def complete(self, **fields: Any) -> dict[str, Any]:
        return await self.post("/v1/completions", json={"prompt": [9] * 200, "max_tokens": 3, **fields})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    service = simulated_service(
        load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100"), EngineOptions(), 1.0
    )
    async with listening(service, "127.0.0.1", 0) as url, aiohttp.ClientSession(url) as session:
        yield Server(session, service)


async def events(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    lines = (await response.text()).splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


class TestClock:
    async def test_held_streams_stay_open_and_say_nothing(self, server: Server) -> None:
        body = {"prompt": "Once", "max_tokens": 60, "stream": True}
        async with server.session.post("/v1/completions", json=body) as response:
            await response.content.readline()
            assert (await server.post("/clock/pause"))["paused"] is True
            await asyncio.sleep(0.05)
            held_s = (await server.get("/clock"))["clock_s"]
            steps = server.service.engine.status().steps
            await asyncio.sleep(0.2)
            assert (await server.get("/clock"))["clock_s"] == held_s
            assert server.service.engine.status().steps == steps
            assert (await server.post("/clock/start"))["paused"] is False
            rest = await events(response)
        assert len(rest) == 59  # the first was read

    async def test_its_speed_can_be_changed_on_the_way(self, server: Server) -> None:
        body = {"prompt": "Once", "max_tokens": 200, "stream": True}
        async with server.session.post("/v1/completions", json=body) as response:
            await response.content.readline()
            before = await server.get("/clock")
            after = await server.post("/clock/speed", json={"time_scale": 100})
            assert 0 <= after["clock_s"] - before["clock_s"] < 1
            assert after["time_scale"] == 100
            assert len(await events(response)) == 199
        assert (await server.post("/clock/speed", json={"time_scale": "inf"}))["time_scale"] == "inf"

    @pytest.mark.parametrize("scale", [0, -1, "fast", None, True, [1]])
    async def test_no_speed_is_a_sentence(self, server: Server, scale: object) -> None:
        body = await server.post("/clock/speed", status=400, json={"time_scale": scale})
        assert body["error"]["param"] == "time_scale"

    async def test_pages_of_other_sites_may_not_touch_it(self, server: Server) -> None:
        for path in ("/clock/pause", "/sleep", "/reset_prefix_cache"):
            await server.post(path, status=403, headers={"Origin": "https://example.com"})
        own = str(server.session._base_url).rstrip("/")
        await server.post("/clock/pause", headers={"Origin": own})


class TestSleep:
    async def test_running_answers_end_as_aborted_and_new_ones_wait(self, server: Server) -> None:
        cut = asyncio.create_task(server.complete(max_tokens=5000))
        await asyncio.sleep(0.2)
        assert await server.post("/sleep?level=1") == {"status": "sleeping"}
        (choice,) = (await cut)["choices"]
        assert choice["finish_reason"] == "abort"
        assert choice["text"]
        assert await server.get("/is_sleeping") == {"is_sleeping": True}
        waiting = asyncio.create_task(server.complete())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        assert await server.post("/wake_up?tags=weights") == {"status": "sleeping"}
        assert await server.post("/wake_up?tags=kv_cache") == {"status": "awake"}
        assert (await waiting)["usage"]["completion_tokens"] == 3
        assert (await server.get("/status"))["is_sleeping"] is False

    async def test_a_stream_ends_with_the_reason(self, server: Server) -> None:
        body = {"prompt": "Once", "max_tokens": 5000, "stream": True}
        async with server.session.post("/v1/completions", json=body) as response:
            await response.content.readline()
            await server.post("/sleep?level=0")
            rest = await events(response)
        assert rest[-1]["choices"][0]["finish_reason"] == "abort"

    @pytest.mark.parametrize("query", ["level=3", "level=x", "mode=keep"])
    async def test_what_is_not_simulated_is_refused(self, server: Server, query: str) -> None:
        assert "error" in await server.post(f"/sleep?{query}", status=400)
        assert "error" in await server.post("/wake_up?tags=coffee", status=400)


async def test_later_prompts_miss_after_a_reset(server: Server) -> None:
    async def cached() -> int:
        return int((await server.complete())["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert [await cached(), await cached()] == [0, 192]
    assert await server.post("/reset_prefix_cache") == {"success": True}
    assert [await cached(), await cached()] == [0, 192]
    await server.post("/reset_prefix_cache?reset_running_requests=true", status=400)


async def test_a_reset_while_requests_run_is_no_success(server: Server) -> None:
    asking = asyncio.create_task(server.complete(max_tokens=5000))
    await asyncio.sleep(0.1)
    assert await server.post("/reset_prefix_cache") == {"success": False}
    asking.cancel()


async def test_how_it_is(server: Server) -> None:
    for method, path in (("GET", "/health"), ("GET", "/ping"), ("POST", "/ping")):
        async with server.session.request(method, path) as response:
            assert (response.status, await response.read()) == (200, b"")
    assert await server.get("/version") == {"version": simserve.__version__}
    assert await server.get("/load") == {"server_load": 0}
    await server.complete()
    status = await server.get("/status")
    assert status["time_scale"] == 1.0
    assert status["lateness_ms"]["tokens"] == 3
    assert status["lateness_ms"]["p99"] > 0


async def test_an_engine_that_failed_is_not_healthy(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    policy = type(server.service.engine._scheduler)  # type: ignore[attr-defined]
    monkeypatch.setattr(policy, "plan", lambda self, plan: 1 / 0)
    body = await server.post("/v1/completions", status=500, json={"prompt": "Once"})
    assert body["error"]["type"] == "server_error"
    async with server.session.get("/health") as response:
        assert response.status == 503
    assert "ZeroDivisionError" in caplog.text


async def test_an_engine_without_switches_says_so(client: Client) -> None:
    for path in ("/sleep", "/clock/pause", "/reset_prefix_cache"):
        async with client.session.post(path) as response:
            assert response.status == 501
            assert "cannot" in (await response.json())["error"]["message"]
    async with client.session.get("/metrics") as response:
        assert "vllm:num_requests_running" in await response.text()
