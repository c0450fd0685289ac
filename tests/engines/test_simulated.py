"""The simulated engine as the server sees it: tokens when they are due, nothing left behind."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from simserve.config import EngineOptions
from simserve.engines import GenerationRequest, SimulatedEngine, TokenEvent, simulated_engine
from simserve.engines.lead import MOST_OF_STEP
from simserve.engines.reports import Arrival, Ending, StepReport
from simserve.errors import RequestError
from simserve.hardware import load_hardware
from simserve.models import load_model


@asynccontextmanager
async def running(time_scale: float, **options: Any) -> AsyncIterator[SimulatedEngine]:
    engine = simulated_engine(
        load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100"), EngineOptions(**options), time_scale
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def request(name: str, limit: int = 10, prompt: int = 100, **fields: int) -> GenerationRequest:
    return GenerationRequest(name, list(range(prompt)), limit, **fields)


async def collect(engine: SimulatedEngine, wanted: GenerationRequest) -> list[TokenEvent]:
    return [event async for event in engine.submit(wanted)]


async def test_every_token_comes_once_and_the_last_event_says_why_and_when() -> None:
    async with running(math.inf) as engine:
        events = await collect(engine, request("a", 25))
    assert sum(event.tokens for event in events) == 25
    assert [event.finish_reason for event in events[:-1]] == [None] * (len(events) - 1)
    last = events[-1]
    assert last.finish_reason == "length"
    assert last.timing is not None
    assert last.timing.arrival_s <= last.timing.scheduled_s < last.timing.first_token_s < last.timing.finish_s


@pytest.mark.parametrize(
    "features",
    [
        {"speculative_config": '{"method": "ngram", "num_speculative_tokens": 4, "acceptance": 0.7}'},
        {"kv_offloading_size": 1.0, "num_gpu_blocks": 12},
    ],
)
async def test_an_engine_with_features_brings_every_token_once(features: dict[str, Any]) -> None:
    async with running(math.inf, **features) as engine:
        for name in ("a", "b", "a again"):
            prompt = GenerationRequest(name, list(range(ord(name[0]), ord(name[0]) + 130)), 25)
            events = await collect(engine, prompt)
            assert sum(event.tokens for event in events) == 25
    assert engine.status().kv_blocks_used == engine.status().waiting_requests == 0
    last = events[-1]
    assert last.timing is not None
    assert last.timing.cached_tokens == 128


async def test_an_answer_shorter_than_the_limit_stops() -> None:
    async with running(math.inf) as engine:
        events = await collect(engine, request("a", 25, output_tokens=5))
    assert sum(event.tokens for event in events) == 5
    assert events[-1].finish_reason == "stop"


async def test_tokens_leave_at_their_simulated_times() -> None:
    """In real time the wall clock between two events is the simulated time between them, within pacing noise."""
    async with running(1.0) as engine:
        wall_s, simulated_s = [], []
        async for event in engine.submit(request("a", 20)):
            wall_s.append(time.monotonic())
            simulated_s.append(event.time_s)
    lateness_s = [w - s - (wall_s[0] - simulated_s[0]) for w, s in zip(wall_s, simulated_s, strict=True)]
    assert len(simulated_s) > 10
    assert min(lateness_s) > -0.1
    assert sorted(lateness_s)[len(lateness_s) // 2] < 0.1


async def test_a_front_end_takes_its_time_before_the_engine_and_after() -> None:
    """100 ms for the request and 1 ms for each of 100 tokens of its prompt; then 50 ms for each token."""
    async with running(math.inf, front_end="100:1000:50000") as engine:
        events = await collect(engine, request("a", 5))
    timing = events[-1].timing
    assert sum(event.tokens for event in events) == 5
    assert timing is not None
    assert timing.scheduled_s - timing.arrival_s == pytest.approx(0.2)
    assert timing.finish_s - timing.first_token_s == pytest.approx(4 * 0.05), "slower than steps, which go on"
    assert events[-1].time_s == timing.finish_s


async def test_tokens_leave_the_live_engine_when_the_front_end_has_sent_them() -> None:
    """A token takes 100 ms to be sent and a step far less, so answers end well after the engine's last step."""
    async with running(1.0, front_end="0:0:100000") as engine:
        begin_s, walls_s, times_s = time.monotonic(), [], []
        async for event in engine.submit(request("a", 4)):
            walls_s.append(time.monotonic() - begin_s)
            times_s.append(event.time_s)
            if event.finish_reason is None:
                assert engine.status().completed_requests == 0
        status = engine.status()
    assert times_s == pytest.approx([times_s[0] + 0.1 * at for at in range(4)])
    assert all(wall_s > 0.1 * at for at, wall_s in enumerate(walls_s, start=1))
    assert (status.completed_requests, status.aborted_requests) == (1, 0)


async def test_an_answer_given_up_on_its_way_out_is_aborted_and_not_completed() -> None:
    async with running(1.0, front_end="0:0:300000") as engine:
        stream = engine.submit(request("a", 1))
        await asyncio.sleep(0.2)
        assert (engine.status().running_requests, engine.status().completed_requests) == (0, 0)
        await stream.aclose()
        await asyncio.sleep(0.3)
        status = engine.status()
    assert (status.completed_requests, status.aborted_requests, status.kv_blocks_used) == (0, 1, 0)


async def test_closing_a_stream_that_the_front_end_still_reads() -> None:
    async with running(1.0, front_end="10000:0:0") as engine:
        stream = engine.submit(request("a", 5000))
        await asyncio.sleep(0.05)
        assert engine.status().waiting_requests == 1
        await stream.aclose()
        await asyncio.sleep(0.1)
        status = engine.status()
    assert (status.waiting_requests, status.running_requests, status.aborted_requests) == (0, 0, 1)


async def test_the_same_prompt_again_finds_its_prefix() -> None:
    async with running(math.inf) as engine:
        await collect(engine, request("a", prompt=100))
        again = await collect(engine, request("b", prompt=100))
    assert again[-1].timing is not None
    assert again[-1].timing.cached_tokens == 96  # six full blocks of 16; the last token must be computed


async def test_closing_a_stream_frees_its_blocks() -> None:
    async with running(1.0) as engine:
        stream = engine.submit(request("a", 5000))
        await anext(stream)
        assert engine.status().kv_blocks_used > 0
        await stream.aclose()
        await asyncio.sleep(0.1)
        status = engine.status()
    assert (status.kv_blocks_used, status.running_requests, status.aborted_requests) == (0, 0, 1)


async def test_closing_a_stream_before_the_engine_saw_the_request_leaves_no_ghost() -> None:
    async with running(1.0) as engine:
        stream = engine.submit(request("a", 5000))
        await stream.aclose()
        await asyncio.sleep(0.1)
        status = engine.status()
    assert (status.running_requests, status.waiting_requests, status.aborted_requests) == (0, 0, 1)


async def test_a_reader_who_falls_behind_gets_what_is_due_in_one_piece() -> None:
    async with running(1.0) as engine:
        stream = engine.submit(request("a", 30))
        await anext(stream)
        await asyncio.sleep(0.2)
        event = await anext(stream)
        assert event.tokens > 5
        assert event.index >= 1
        await stream.aclose()


async def test_a_prompt_that_cannot_fit_is_refused_at_once() -> None:
    async with running(math.inf, max_model_len=64) as engine:
        with pytest.raises(RequestError, match="100 tokens"):
            engine.submit(request("a", prompt=100))
        assert len(await collect(engine, request("b", prompt=10))) >= 1


async def test_two_live_requests_cannot_share_an_id() -> None:
    async with running(1.0) as engine:
        stream = engine.submit(request("a"))
        with pytest.raises(RequestError, match="in use"):
            engine.submit(request("a"))
        await stream.aclose()


async def test_stopping_the_engine_ends_open_streams() -> None:
    async with running(1.0) as engine:
        stream = engine.submit(request("a", 5000))
        await anext(stream)
    assert [event.finish_reason async for event in stream] == ["abort"]


async def test_a_long_prompt_is_hashed_off_the_loop_and_served() -> None:
    async with running(math.inf) as engine:
        events = await collect(engine, request("a", 3, prompt=20_000))
    assert sum(event.tokens for event in events) == 3


class Witness:
    """Hears tokens, as a stream's sink, and ends of steps, as the engine's observer, in the order of their coming."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.over = asyncio.Event()

    def step(self, tokens: int) -> None:
        self.heard += ["token"] * tokens

    def prepare(self) -> None: ...

    def event(self, event: TokenEvent) -> None:
        self.heard += ["token"] * event.tokens
        if event.finish_reason is not None:
            self.heard.append(event.finish_reason)
            self.over.set()

    def failed(self, error: Exception) -> None:
        raise AssertionError from error

    def arrived(self, arrival: Arrival) -> None: ...

    def step_done(self, step: StepReport) -> None:
        self.heard.append(f"step with {step.output_tokens}")

    def ended(self, ending: Ending) -> None:
        self.heard.append(f"ended after {ending.output_tokens}")


async def test_tokens_do_not_wait_until_the_step_after_theirs_is_planned() -> None:
    witness = Witness()
    async with running(10.0) as engine:
        engine.observe(witness)
        engine.submit(request("a", 4)).deliver_to(witness)
        await witness.over.wait()
    assert witness.heard == [*["token", "step with 1"] * 4, "ended after 4", "length"]


async def test_who_goes_while_tokens_are_handed_out_leaves_nothing_behind() -> None:
    stays, goes = Witness(), Witness()
    async with running(10.0) as engine:
        leaving = engine.submit(request("b", 1000))
        leaving.deliver_to(goes)
        stays.step = lambda tokens: asyncio.get_running_loop().create_task(leaving.aclose())  # type: ignore[assignment, misc]
        engine.submit(request("a", 20)).deliver_to(stays)
        await stays.over.wait()
        status = engine.status()
        assert (status.aborted_requests, status.completed_requests, status.kv_blocks_used) == (1, 1, 0)
    assert stays.heard == ["length"]
    assert 0 < goes.heard.count("token") < 20


async def test_a_large_batch_begins_early_and_nobody_is_far_off() -> None:
    """Tokens are early by less than a quarter of a step; each stream still gets each of them, once."""
    async with running(1.0) as engine:
        pretend_a_token_takes_40_us(engine)
        events = await asyncio.gather(*(collect(engine, request(f"r{at}", 50)) for at in range(100)))
    assert all(sum(event.tokens for event in each) == 50 for each in events)
    assert all(each[-1].finish_reason == "length" for each in events)
    early, late = engine.punctuality.early, engine.punctuality.late
    assert late.count == 100 * 50
    assert early.count > 0
    assert early.max_s <= MOST_OF_STEP * max_step_s(events)


def pretend_a_token_takes_40_us(engine: SimulatedEngine) -> None:
    for _ in range(500):
        engine._hand_out.lead.took(100, 100 * 40e-6)


def max_step_s(events: list[list[TokenEvent]]) -> float:
    """The longest time between two events of a sequence."""
    return max(b.time_s - a.time_s for each in events for a, b in itertools.pairwise(each))


async def test_held_time_lets_no_token_out_early() -> None:
    async with running(1.0) as engine:
        streams = [engine.submit(request(f"r{at}", 1000)) for at in range(100)]
        pretend_a_token_takes_40_us(engine)
        await anext(streams[-1])
        await asyncio.sleep(0.3)
        engine.pause()
        await asyncio.sleep(0.1)
        before = sum(stream.produced_tokens for stream in streams)
        await asyncio.sleep(0.2)
        assert sum(stream.produced_tokens for stream in streams) == before
        engine.resume()
        for stream in streams:
            produced = stream.produced_tokens
            while stream.produced_tokens == produced:
                await anext(stream)
        for stream in streams:
            await stream.aclose()
