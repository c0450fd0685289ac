"""A server over a cluster, as it comes from settings, and clients that read streams to the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from server.conftest import Client
from server.serving import serving

SLOW = "0.02"
"""Time scale at which a step takes some 50 ms: a test does what it does before the streams end, and then hurries."""

THREE = {"groups": [{"name": "all", "replicas": 3}]}


@asynccontextmanager
async def serving_cluster(cluster: dict[str, Any], time_scale: str = SLOW, more: str = "") -> AsyncIterator[Client]:
    """A client of a server over the cluster file that ``cluster`` is, of a small model."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "cluster.yaml"
        file.write_text(yaml.safe_dump(cluster))
        text = (
            f"cluster: {{file: {file}}}\nengine: {{time_scale: {time_scale}}}\nmodels: {{default: facebook/opt-125m}}\n"
        )
        async with serving(text + more) as client:
            yield client


class Streamed(NamedTuple):
    """What a client got: the status, its tokens one by one, and how it ended."""

    status: int
    words: list[str]
    finish_reason: str | None
    error: dict[str, Any] | None


async def streamed(client: Client, max_tokens: int, **fields: Any) -> Streamed:
    """One stream, read to its end, which is [DONE] whatever happened."""
    async with client.complete(max_tokens=max_tokens, stream=True, **fields) as response:
        raw = await response.text()
        if response.status != 200:
            return Streamed(response.status, [], None, json.loads(raw)["error"])
    events = raw.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    words: list[str] = []
    reason = error = None
    for event in events[:-2]:
        body = json.loads(event.removeprefix("data: "))
        if "error" in body:
            error = body["error"]
            continue
        choice = body["choices"][0]
        words += [choice["text"]] if choice["text"] else []
        reason = choice["finish_reason"] or reason
    return Streamed(200, words, reason, error)


async def until(client: Client, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until ``condition`` holds for the body of ``/status``, and return it."""
    async with asyncio.timeout(30):
        while not condition(status := await client.get("/status")):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return status


async def post(client: Client, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    async with client.session.post(path, json=body) if body is not None else client.session.post(path) as response:
        return response.status, await response.json()


async def hurry(client: Client) -> None:
    """Let simulated time go fast from now on."""
    assert (await post(client, "/clock/speed", {"time_scale": 20}))[0] == 200


def replica(status: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in status["replicas"] if row["name"] == name)


async def check_nothing_is_left(client: Client) -> None:
    """Nothing runs, nothing waits and no KV block is taken: in all, and on each replica."""
    status = await until(client, lambda now: now["pending_requests"] == now["running_requests"] == 0)
    status = await until(client, lambda now: now["memory_usage"]["used"] == now["inflight_batches"] == 0)
    for row in status["replicas"]:
        assert (row["requests"], row["running_requests"], row["kv_blocks"]["used"]) == (0, 0, 0), row["name"]
