"""Ways to look at a server inside this process: each makes one with the settings in a text."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from unittest import mock

from server.effects.effect import Look, at_once
from server.serving import serving, settings
from simserve.errors import SimServeError
from simserve.server.auth import Token, sign
from simserve.server.models import available_models

SECRET = "0123456789abcdef0123456789abcdef"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def text_of(body: dict[str, Any]) -> Any:
    return body["choices"][0]["text"]


def tokens_of(body: dict[str, Any]) -> Any:
    return body["usage"]["completion_tokens"]


def model_of(body: dict[str, Any]) -> Any:
    return body["model"]


def header(name: str, key: str = "sk-x") -> Look:
    """A header of the answer to whoever has ``key``."""

    async def look(text: str) -> Any:
        async with serving(text, bearer(key)) as client, client.complete(max_tokens=1) as response:
            return response.headers.get(name)

    return look


async def statuses_at_once(text: str) -> list[int]:
    """The statuses of three requests that come one after the other, while the simulated clock stands."""
    async with serving(text) as client:
        await client.session.post("/clock/pause")
        tasks = []
        for count in (1, 2, 3):
            tasks.append(asyncio.create_task(client.complete(max_tokens=1).__aenter__()))
            for _ in range(3000):
                now = await client.get("/status")
                if tasks[-1].done() or now["pending_requests"] + now["running_requests"] >= count:
                    break
                await asyncio.sleep(0.01)
        await client.session.post("/clock/start")
        return [(await task).status for task in tasks]


def slow_sender(pause_s: float) -> Look:
    """What is answered to somebody who sends the last byte of a body later than the rest."""

    async def look(text: str) -> Any:
        async with serving(text) as client:
            url = client.session._base_url
            reader, writer = await asyncio.open_connection(url.host, url.port)
            body = b'{"prompt": "x", "max_tokens": 1}'
            writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            writer.write(b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body[:-1]))
            await asyncio.sleep(pause_s)
            writer.write(body[-1:])
            first = await asyncio.wait_for(reader.readline(), 30)
            writer.close()
            return first.split()[1]

    return look


async def answered_after_a_pause(text: str) -> bool:
    """Whether a second request on a connection that said nothing for a second is answered."""
    async with serving(text) as client:
        url = client.session._base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        try:
            for _ in range(2):
                writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
                await asyncio.sleep(1.0)
            return answer.startswith(b"HTTP/1.1 200")
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        finally:
            writer.close()


def signed(**fields: Any) -> str:
    return sign(
        Token(**{"id": "1", "name": "n", "permissions": ["all"], "created_s": int(time.time()), **fields}), SECRET
    )


async def states(text: str) -> list[str]:
    """Which models are in memory after each has been asked for."""
    async with serving(text) as client:
        for name in ("a", "b"):
            async with client.complete(model=name, max_tokens=1) as response:
                assert response.status == 200
        return [model["state"] for model in (await client.get("/status"))["models"]]


async def states_at_the_start(text: str) -> list[str]:
    async with serving(text) as client:
        return [model["state"] for model in (await client.get("/status"))["models"]]


async def unloaded_after_a_while(text: str) -> bool:
    """Whether the model that is there from the start goes within so many looks."""
    async with serving(text) as client:
        for _ in range(200):
            if (await client.get("/status"))["models"][0]["state"] == "unloaded":
                return True
            await asyncio.sleep(0.005)
        return False


async def seconds_to_load(text: str) -> Any:
    return available_models(settings(text))[0].load_s


async def first_engine(text: str) -> dict[str, Any]:
    async with serving(text) as client:
        described: dict[str, Any] = (await client.get("/status"))["engine"]
        return described


async def engine_type(text: str) -> Any:
    return (await first_engine(text))["engine"]


async def device(text: str) -> Any:
    """Where torch runs, or why it cannot."""
    try:
        return (await first_engine(text))["device"]
    except SimServeError as error:
        return str(error)


async def threads(text: str) -> Any:
    """How many threads torch is told to compute with; it tells only the thread that has been told."""
    with mock.patch("torch.set_num_threads") as told:
        async with serving(text):
            return told.call_args.args[0]


async def slowest_ttft(text: str) -> float:
    """Of prompts that do not fit into one step."""
    async with serving(text) as client:
        bodies = [{"prompt": [5 + at] * 1500, "max_tokens": 30} for at in range(8)]
        responses = await at_once(client, bodies)
        return max(float(response.headers["x-simserve-ttft-ms"]) for response in responses)


async def streamed(text: str) -> str:
    async with serving(text) as client, client.complete(max_tokens=1) as response:
        return str(response.content_type)


async def reasoning(text: str) -> bool:
    async with serving(text) as client, client.chat(max_tokens=20) as response:
        return "reasoning" in (await response.json())["choices"][0]["message"]


async def draws_repeat(text: str) -> bool:
    """Whether the same of 64 requests fail with the same server started anew."""

    async def draws() -> list[int]:
        async with serving(text) as client:
            found = []
            for _ in range(64):
                async with client.complete(max_tokens=1) as response:
                    found.append(response.status)
            return found

    return await draws() == await draws()


async def is_held_up(text: str) -> bool:
    """Whether a request is still not answered after the event loop went round many times."""
    async with serving(text) as client:
        task = asyncio.create_task(client.complete(max_tokens=1).__aenter__())
        for _ in range(300):
            await asyncio.sleep(0.003)
            if task.done():
                return False
        task.cancel()
        await asyncio.wait([task])
        return True
