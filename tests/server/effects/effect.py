"""One key of the settings, changed, and what somebody outside sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from server.conftest import Client
from server.serving import FAST, serving

MODEL = "models: {default: facebook/opt-125m}\n"

Look = Callable[[str], Awaitable[Any]]
"""Makes a server with the settings in a text and says what it does."""


@dataclass(frozen=True)
class Effect:
    """With ``changed``, the settings in a text, ``look`` sees something else than with ``plain``, as ``expected`` says.

    ``expected`` is given what was seen with each. It must not hold of the same thing twice: then a key that nobody
    reads would do.
    """

    changed: str
    look: Look
    expected: Callable[[Any, Any], bool]
    plain: str = FAST

    async def check(self) -> None:
        """Fail if the key does nothing, or the wrong thing."""
        changed, plain = await self.look(self.changed), await self.look(self.plain)
        assert not self.expected(plain, plain), f"this could not fail: {plain!r}"
        assert self.expected(changed, plain), f"{changed!r}, and without the key {plain!r}"


def to(value: Any) -> Callable[[Any, Any], bool]:
    """It becomes ``value``, which it was not."""
    return lambda changed, plain: changed == value and plain != value


def more(changed: Any, plain: Any) -> bool:
    """It becomes more."""
    return bool(changed > plain)


def less(changed: Any, plain: Any) -> bool:
    """It becomes less."""
    return bool(changed < plain)


def other(changed: Any, plain: Any) -> bool:
    """It becomes another one; for what is the same every time."""
    return bool(changed != plain)


def engine(name: str) -> Look:
    """What the engine of the first model says of itself."""

    async def look(text: str) -> Any:
        async with serving(text) as client, client.complete(max_tokens=1) as response:
            assert response.status == 200
            status = await client.get("/status")
            return (status["models"][0] if "models" in status else status)["engine"][name]

    return look


def card(name: str, at: int = 0) -> Look:
    """What the list of models says of one of them."""

    async def look(text: str) -> Any:
        async with serving(text) as client:
            return (await client.get("/v1/models"))["data"][at][name]

    return look


def answer(read: Callable[[dict[str, Any]], Any], **fields: Any) -> Look:
    """Something in the answer to one request."""

    async def look(text: str) -> Any:
        async with serving(text) as client, client.complete(**fields) as response:
            return read(await response.json())

    return look


def status(headers: dict[str, str] | None = None, **fields: Any) -> Look:
    """The status of one request."""

    async def look(text: str) -> Any:
        async with (
            serving(text) as client,
            client.session.post(
                "/v1/completions", json={"prompt": "hello", "max_tokens": 1, **fields}, headers=headers
            ) as response,
        ):
            return response.status

    return look


async def at_once(client: Client, bodies: Sequence[dict[str, Any]]) -> list[Any]:
    """The responses to requests that come, in this order, at the same instant of the simulated clock."""

    async def send(body: dict[str, Any]) -> Any:
        async with client.complete(**body) as response:
            assert response.status == 200, await response.text()
            await response.read()
            return response

    async def queued(count: int) -> None:
        for _ in range(3000):
            now = await client.get("/status")
            if now["pending_requests"] + now["running_requests"] >= count:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"only these came: {now}")

    await client.session.post("/clock/pause")
    tasks = []
    for body in bodies:
        tasks.append(asyncio.create_task(send(body)))
        await queued(sum(len(one.get("prompt", "x")) if _is_many(one) else 1 for one in bodies[: len(tasks)]))
    await client.session.post("/clock/start")
    return await asyncio.gather(*tasks)


def _is_many(body: dict[str, Any]) -> bool:
    return isinstance(body.get("prompt"), list) and isinstance(body["prompt"][0], list)


def again(*bodies: dict[str, Any]) -> Look:
    """The simulated milliseconds until the first token of the last of several requests, one after the other."""

    async def look(text: str) -> float:
        async with serving(text) as client:
            for body in bodies:
                async with client.complete(**body) as response:
                    assert response.status == 200, await response.text()
                    await response.read()
            return float(response.headers["x-simserve-ttft-ms"])

    return look


def times(*bodies: dict[str, Any], of: str = "e2e") -> Look:
    """The simulated milliseconds of requests that come at the same instant."""

    async def look(text: str) -> list[float]:
        async with serving(text) as client:
            responses = await at_once(client, bodies)
            return [float(response.headers[f"x-simserve-{of}-ms"]) for response in responses]

    return look
