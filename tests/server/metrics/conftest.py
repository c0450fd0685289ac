"""A simulated server at infinite speed, and what its metrics page says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.server.run import listening
from simserve.server.service import Service
from simserve.server.simulated import simulated_service

Labels = frozenset[tuple[str, str]]


@dataclass
class Server:
    session: aiohttp.ClientSession
    service: Service

    async def complete(self, **fields: object) -> dict[str, object]:
        async with self.session.post("/v1/completions", json={"prompt": "Once", **fields}) as response:
            assert response.status == 200, await response.text()
            if fields.get("stream"):
                await response.read()
                return {}
            return dict(await response.json())

    async def samples(self) -> dict[str, dict[Labels, float]]:
        """Every sample of the page by name and labels."""
        async with self.session.get("/metrics") as response:
            assert response.status == 200
            page = await response.text()
        samples: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        return samples

    async def total(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels."""
        samples = (await self.samples())[name]
        return sum(value for have, value in samples.items() if set(labels.items()) <= have)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    service = simulated_service(
        load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100"), EngineOptions(), float("inf")
    )
    async with listening(service, "127.0.0.1", 0) as url, aiohttp.ClientSession(url) as session:
        yield Server(session, service)
