"""The figures that the page is sent, without a browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from server.conftest import Client
from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.server.dashboard import pages
from simserve.server.run import listening
from simserve.server.simulated import simulated_service


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    model, hardware = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100")
    service = simulated_service(model, hardware, EngineOptions(), 10.0)
    async with listening(service, "127.0.0.1", 0) as url, aiohttp.ClientSession(url) as session:
        yield session


async def figures(response: aiohttp.ClientResponse, count: int) -> list[dict[str, Any]]:
    """The next ``count`` events."""
    found: list[dict[str, Any]] = []
    async for line in response.content:
        if line.startswith(b"data: "):
            found.append(json.loads(line[6:]))
            if len(found) == count:
                break
    return found


async def test_it_begins_with_what_is_served_and_goes_on_with_what_happens(session: aiohttp.ClientSession) -> None:
    async with session.get("/dashboard/events") as response:
        (hello,) = await figures(response, 1)
        assert hello["about"]["model"] == "meta-llama/Llama-3.1-8B-Instruct"
        assert (hello["paused"], hello["time_scale"], hello["completed"]) == (False, 10.0, 0)
        body = {"prompt": [4] * 500, "max_tokens": 40}
        async with session.post("/v1/completions", json=body) as answer:
            await answer.read()
        ticks = await figures(response, 2)
    steps = [step for tick in ticks for step in tick["steps"]]
    assert sum(prompt for _, _, _, prompt in steps) == 500
    assert sum(decodes for _, _, decodes, _ in steps) == 39
    assert [event[1] for tick in ticks for event in tick["events"]] == ["arrived", "finished"]
    last = ticks[-1]
    assert last["completed"] == 1
    assert last["points"][0]["output_per_s"] > 0
    assert last["points"][0]["ttft_ms"][0] > 0
    assert last["points"][0]["running"] == 0


async def test_who_comes_later_sees_what_was_before(session: aiohttp.ClientSession) -> None:
    async with session.get("/dashboard/events") as first:
        await figures(first, 4)
        async with session.get("/dashboard/events") as second:
            (hello,) = await figures(second, 1)
    assert len(hello["points"]) >= 3


async def test_nobody_looks_and_nothing_ticks(session: aiohttp.ClientSession) -> None:
    async with session.get("/dashboard/events") as response:
        await figures(response, 2)
        response.close()
    await asyncio.sleep(2 * pages.TICK_S)
    tasks = [task for task in asyncio.all_tasks() if "Dashboard._tick" in str(task.get_coro())]
    assert tasks == []


async def test_there_is_room_for_so_many(session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_VIEWERS", 1)
    async with session.get("/dashboard/events") as first:
        await figures(first, 1)
        async with session.get("/dashboard/events") as second:
            assert second.status == 503


async def test_the_page_may_talk_to_its_own_server_only(session: aiohttp.ClientSession) -> None:
    kinds = {
        "": "text/html",
        "/style.css": "text/css",
        "/dashboard.js": "text/javascript",
        "/icon.svg": "image/svg+xml",
    }
    for path, kind in kinds.items():
        async with session.get(f"/dashboard{path}") as response:
            assert response.status == 200
            assert response.content_type == kind
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            text = await response.text()
        assert "https://" not in text
        assert "http://" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    for path in ("/nothing.js", "/../app.py", "/..%2Ffeed.py"):
        async with session.get(f"/dashboard{path}") as response:
            assert response.status == 404


async def test_an_engine_that_tells_nothing_has_a_page_too(client: Client) -> None:
    async with client.session.get("/dashboard/events") as response:
        hello, tick = await figures(response, 2)
    assert hello["about"]["model"] == "test-model"
    assert "paused" not in tick
    assert tick["points"][0]["running"] == 0
