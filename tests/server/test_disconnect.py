"""Clients that go away, and a server that does: neither leaves anything behind."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from server.conftest import Client
from server.fakes import ScriptedEngine
from simserve.errors import ConfigError
from simserve.server.run import listening, log_when_idle
from simserve.server.service import Service


async def until(condition: Any, within_s: float = 2.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("choices", [1, 3])
async def test_a_client_that_hangs_up_frees_its_blocks(
    client: Client, engine: ScriptedEngine, stream: bool, choices: int
) -> None:
    engine.step_s = 0.02
    asking = asyncio.create_task(_read_until_cancelled(client, stream=stream, n=choices, max_tokens=200))
    await until(lambda: engine.status().running_requests == choices)
    assert (await client.get("/status"))["memory_usage"]["used"] > 0
    asking.cancel()
    await until(lambda: engine.status().running_requests == 0, within_s=0.5)
    assert (await client.get("/status"))["memory_usage"]["used"] == 0
    assert (engine.aborted, engine.completed) == (choices, 0)


async def _read_until_cancelled(client: Client, **fields: Any) -> None:
    async with client.chat(**fields) as response:
        await response.read()


async def test_a_client_that_stops_reading_in_the_middle_frees_its_blocks(
    client: Client, engine: ScriptedEngine
) -> None:
    engine.step_s = 0.01
    async with client.chat(stream=True, max_tokens=200) as response:
        await response.content.readline()
        response.close()
    await until(lambda: engine.status().running_requests == 0, within_s=0.5)
    assert engine.aborted == 1


async def test_open_streams_are_ended_when_the_server_stops(service: Service, engine: ScriptedEngine) -> None:
    engine.step_s = 0.05
    async with aiohttp.ClientSession() as session:
        async with listening(service, "127.0.0.1", 0) as url:
            client = Client(session)
            body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 200}
            response = await client.session.post(f"{url}/v1/chat/completions", json=body)
            await response.content.readline()
            start = time.monotonic()
        assert time.monotonic() - start < 2
        rest = (await response.read()).decode()
    assert "shutting down" in rest
    assert rest.endswith("data: [DONE]\n\n")


async def test_a_silent_reader_cannot_keep_the_server_from_stopping(service: Service, engine: ScriptedEngine) -> None:
    async with listening(service, "127.0.0.1", 0) as url:
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        await writer.drain()
        start = time.monotonic()
    writer.close()
    assert time.monotonic() - start < 2


async def test_a_busy_port_is_one_sentence(service: Service, url: str) -> None:
    port = int(url.rsplit(":", 1)[1])
    with pytest.raises(ConfigError, match=f"port {port} is already in use.*--port"):
        async with listening(service, "127.0.0.1", port):
            pass


async def test_an_address_of_another_machine_is_one_sentence(service: Service) -> None:
    with pytest.raises(ConfigError, match="--host"):
        async with listening(service, "192.0.2.1", 0):
            pass


async def test_the_idle_log_comes_soon_and_not_too_often(
    engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="simserve.server")
    logging_idle = asyncio.create_task(log_when_idle(engine, check_every_s=0.01, log_every_s=60))
    await until(lambda: "[0.500s] Service is idle, waiting for requests..." in caplog.text)
    await asyncio.sleep(0.05)
    logging_idle.cancel()
    assert caplog.text.count("Service is idle") == 1
