"""A server over a scripted engine on a free port, and a client that knows where it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from server.fakes import NumberedWords, ScriptedEngine, WordTokenizer
from simserve.server.embeddings import SimulatedEmbedder
from simserve.server.run import listening
from simserve.server.service import Service
from simserve.server.simulated_plans import SimulatedPlanner

MODEL = "test-model"


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def service(engine: ScriptedEngine) -> Service:
    planner = SimulatedPlanner(MODEL, WordTokenizer(), NumberedWords(), engine.max_model_len, vocab_size=1000)
    return Service(engine, planner, SimulatedEmbedder(engine, 8), [MODEL, "an-alias"], MODEL)


@pytest.fixture
async def url(service: Service) -> AsyncIterator[str]:
    async with listening(service, "127.0.0.1", 0) as url:
        yield url


@dataclass
class Client:
    """Posts JSON; chat and completion bodies get a prompt and the rest from the test."""

    session: aiohttp.ClientSession

    def chat(self, **fields: Any) -> Any:
        body = {"messages": [{"role": "user", "content": "say something"}], **fields}
        return self.session.post("/v1/chat/completions", json=body)

    def complete(self, **fields: Any) -> Any:
        return self.session.post("/v1/completions", json={"prompt": "once upon a time", **fields})

    async def get(self, path: str) -> Any:
        async with self.session.get(path) as response:
            return await response.json()

    async def chunks(self, request: Any) -> list[dict[str, Any]]:
        """Every event of a stream but the [DONE] that must end it."""
        async with request as response:
            assert response.status == 200, await response.text()
            assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            events = (await response.text()).split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


@pytest.fixture
async def client(url: str) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(url) as session:
        yield Client(session)
