"""What was served can be taken away and simulated on other hardware."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from simserve.config import EngineOptions
from simserve.engines.reports import Arrival, Ending, StepReport
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.server.run import listening
from simserve.server.simulated import simulated_service
from simserve.server.trace import ServedTrace
from simserve.simulation import simulate
from simserve.workload import read_trace

MODEL, HARDWARE = "meta-llama/Llama-3.1-8B-Instruct", "A100"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    service = simulated_service(load_model(MODEL), load_hardware(HARDWARE), EngineOptions(), 50.0)
    async with listening(service, "127.0.0.1", 0) as url, aiohttp.ClientSession(url) as session:
        yield session


async def ask(session: aiohttp.ClientSession, prompt: list[int], tokens: int) -> float:
    """The simulated time to the last token, in milliseconds."""
    async with session.post("/v1/completions", json={"prompt": prompt, "max_tokens": tokens}) as response:
        return float(response.headers["x-simserve-e2e-ms"])


async def test_a_trace_simulated_is_what_was_served(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Arrivals, lengths and shared prefixes go into the file; out come the very times that clients were given."""
    prompts = [[at % 3 + 1] * (100 + 40 * at) for at in range(12)]
    served_ms = await asyncio.gather(*(ask(session, prompt, 20 + at) for at, prompt in enumerate(prompts)))
    async with session.get("/trace") as response:
        assert response.headers["Content-Type"] == "application/jsonl; charset=utf-8"
        content = await response.read()
    path = tmp_path / "served.jsonl"
    path.write_bytes(content)
    workload = read_trace(str(path))
    assert sorted(workload.input_tokens) == sorted(map(len, prompts))
    done = simulate(workload, load_model(MODEL), load_hardware(HARDWARE), EngineOptions())
    rows = sorted(map(json.loads, content.splitlines()), key=lambda row: row["arrival_s"])
    assert [row["cached_tokens"] for row in rows] == done.records.cached_tokens.tolist()
    simulated_ms = (done.records.finish_s - done.records.arrival_s) * 1e3
    assert sorted(simulated_ms) == pytest.approx(sorted(served_ms), abs=0.02)


async def test_ttft_and_itl_are_those_of_the_batch_run_at_twenty_times_the_speed(tmp_path: Path) -> None:
    """As many requests as make the batch's composition change all the time, paced on the wall's clock."""
    model, hardware = load_model(MODEL), load_hardware(HARDWARE)
    service = simulated_service(model, hardware, EngineOptions(), 20.0)
    seen = Gaps()
    service.engine.observe(seen)  # type: ignore[attr-defined]
    async with listening(service, "127.0.0.1", 0) as url, aiohttp.ClientSession(url) as session:

        async def stream(at: int) -> None:
            await asyncio.sleep(at / 200)
            body = {"prompt": [at] * (50 + 37 * at), "max_tokens": 10 + at % 17, "stream": True}
            async with session.post("/v1/completions", json=body) as response:
                await response.read()

        await asyncio.gather(*(stream(at) for at in range(40)))
        async with session.get("/trace") as response:
            (tmp_path / "served.jsonl").write_bytes(await response.read())
    done = simulate(read_trace(str(tmp_path / "served.jsonl")), model, hardware, EngineOptions()).records
    batch_ttft_s = done.first_token_s - done.arrival_s
    batch_gap_s = np.repeat(done.gaps.gap_s, done.gaps.count)
    assert len(seen.ttft_s) == len(batch_ttft_s) == 40
    assert len(seen.gap_s) == len(batch_gap_s)
    percents = [1, 25, 50, 75, 90, 99]
    for live, batch in ((seen.ttft_s, batch_ttft_s), (seen.gap_s, batch_gap_s)):
        np.testing.assert_allclose(np.percentile(live, percents), np.percentile(batch, percents), rtol=1e-6)


class Gaps:
    """Every TTFT and every gap between tokens that an engine tells of."""

    def __init__(self) -> None:
        self.ttft_s: list[float] = []
        self.gap_s: list[float] = []

    def arrived(self, arrival: Arrival) -> None: ...

    def step_done(self, step: StepReport) -> None:
        self.ttft_s += [first.ttft_s for first in step.first_tokens]
        for gap_s, count in step.gaps:
            self.gap_s += [gap_s] * count

    def ended(self, ending: Ending) -> None: ...


async def test_the_command_line_reads_it(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    await ask(session, [1] * 50, 5)
    async with session.get("/trace") as response:
        (tmp_path / "served.jsonl").write_bytes(await response.read())
    argv = [sys.executable, "-m", "simserve", "simulate", "--model", MODEL, "--hardware", "H100", "--json"]
    done = await asyncio.to_thread(
        subprocess.run,
        [*argv, "--trace", str(tmp_path / "served.jsonl")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["completed"] == 1


async def test_who_hung_up_is_in_it_with_what_it_got(session: aiohttp.ClientSession) -> None:
    body = {"prompt": [3] * 40, "max_tokens": 100_000, "stream": True}
    async with session.post("/v1/completions", json=body) as response:
        await response.content.readline()
        response.close()
    await asyncio.sleep(0.2)
    async with session.get("/trace") as response:
        (row,) = map(json.loads, (await response.read()).splitlines())
    assert (row["finish_reason"], row["input_tokens"]) == ("abort", 40)
    assert 1 <= row["output_tokens"] < 100_000


def ending(number: int, hashes: int) -> Ending:
    return Ending(f"r{number}", 1.0, number / 10, "length", 100, 5, 5, 0, list(range(hashes)), 16, None)


def test_it_forgets_the_oldest_when_there_are_too_many() -> None:
    trace = ServedTrace(max_requests=3, max_hashes=1000)
    for number in range(10):
        trace.ended(ending(number, 1))
    assert (len(trace), trace.forgotten) == (3, 7)


def test_long_prompts_cannot_fill_the_memory() -> None:
    trace = ServedTrace(max_requests=1000, max_hashes=100)
    for number in range(10):
        trace.ended(ending(number, 40))
    assert len(trace) == 2
