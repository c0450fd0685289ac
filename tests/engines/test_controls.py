"""The simulated engine under control: held, sped up, put to sleep, made to forget, watched, and broken."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import numpy as np
import pytest

from engines.test_simulated import collect, request, running
from simserve.config import EngineOptions
from simserve.engines import SimulatedEngine, TokenEvent
from simserve.engines.controls import ForgetsPrefixes, Observable, Paced, Sleeps
from simserve.engines.reports import Arrival, Ending, StepReport
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.simulation import simulate
from simserve.workload import Workload


class Watcher:
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.steps: list[StepReport] = []
        self.endings: list[Ending] = []

    def arrived(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)

    def step_done(self, step: StepReport) -> None:
        self.steps.append(step)

    def ended(self, ending: Ending) -> None:
        self.endings.append(ending)


async def test_it_can_all_that_the_server_may_ask_for() -> None:
    async with running(1.0) as engine:
        assert isinstance(engine, Observable)
        assert isinstance(engine, Paced)
        assert isinstance(engine, ForgetsPrefixes)
        assert isinstance(engine, Sleeps)


class TestTheClock:
    async def test_held_it_keeps_streams_open_and_gives_no_tokens(self) -> None:
        async with running(1.0) as engine:
            stream = engine.submit(request("a", 2000))
            await anext(stream)
            engine.pause()
            await asyncio.sleep(0.05)
            steps, clock_s = engine.status().steps, engine.status().clock_s
            await asyncio.sleep(0.2)
            assert (engine.status().steps, engine.status().clock_s) == (steps, clock_s)
            engine.resume()
            await asyncio.sleep(0.2)
            assert engine.status().steps > steps
            await stream.aclose()

    async def test_a_change_of_speed_loses_no_token_and_no_time(self) -> None:
        async with running(1.0) as engine:
            stream = engine.submit(request("a", 60))
            times_s: list[float] = []
            async for event in stream:
                times_s.append(event.time_s)
                engine.set_time_scale(3.0 if len(times_s) % 2 else 0.5)
            engine.set_time_scale(1.0)
            again = [event.time_s async for event in engine.submit(request("b", 60))]
        assert times_s == sorted(times_s)
        assert times_s[-1] - times_s[0] == pytest.approx(again[-1] - again[0], rel=0.05)

    async def test_ten_times_as_fast_takes_a_tenth_of_the_time(self) -> None:
        async with running(10.0) as engine:
            start_s = time.monotonic()
            events = await collect(engine, request("a", 100))
            took_s = time.monotonic() - start_s
        timing = events[-1].timing
        assert timing is not None
        simulated_s = timing.finish_s - timing.arrival_s
        assert simulated_s / 10 <= took_s < simulated_s / 2

    async def test_lateness_is_counted_for_every_token_in_real_time_only(self) -> None:
        async with running(1.0) as engine:
            await collect(engine, request("a", 20))
            assert engine.punctuality.late.count == 20
            engine.set_time_scale(math.inf)
            await collect(engine, request("b", 20))
            assert engine.punctuality.late.count == 20


class TestSleep:
    async def test_what_runs_is_aborted_and_who_comes_waits_until_it_wakes(self) -> None:
        async with running(1.0) as engine:
            stream = engine.submit(request("a", 5000))
            await anext(stream)
            await engine.sleep(1, "abort")
            assert engine.sleep_level == 1
            *_, last = [event async for event in stream]
            assert (last.finish_reason, last.stop_reason) == ("abort", "sleep")
            later = asyncio.create_task(collect(engine, request("b", 3)))
            await asyncio.sleep(0.1)
            assert engine.status().waiting_requests == 1
            assert engine.status().running_requests == 0
            engine.wake_up([])
            events = await later
        assert events[-1].timing is not None
        assert events[-1].timing.scheduled_s - events[-1].timing.arrival_s > 0.09

    async def test_it_can_wait_for_what_runs(self) -> None:
        async with running(1.0) as engine:
            first = asyncio.create_task(collect(engine, request("a", 20)))
            await asyncio.sleep(0.05)
            await engine.sleep(0, "wait")
            assert first.done() or (await first)[-1].finish_reason == "length"
            assert engine.status().running_requests == 0

    async def test_it_waits_for_what_a_front_end_reads_and_sends(self) -> None:
        async with running(1.0, front_end="100:0:100000") as engine:
            first = asyncio.create_task(collect(engine, request("a", 2)))
            await asyncio.sleep(0.05)
            await engine.sleep(0, "wait")
            assert engine.status().completed_requests == 1
            assert (await first)[-1].finish_reason == "length"

    async def test_its_kv_cache_is_gone_and_at_level_0_it_is_not(self) -> None:
        async with running(math.inf) as engine:
            await collect(engine, request("a"))
            await engine.sleep(0, "abort")
            engine.wake_up(["scheduling"])
            assert await cached(engine, "b") == 96
            await engine.sleep(1, "abort")
            engine.wake_up([])
            assert await cached(engine, "c") == 0

    async def test_it_is_awake_once_all_its_parts_are(self) -> None:
        async with running(math.inf) as engine:
            await engine.sleep(2, "abort")
            engine.wake_up(["weights"])
            assert engine.sleep_level == 2
            engine.wake_up(["kv_cache"])
            assert engine.sleep_level is None


async def cached(engine: SimulatedEngine, name: str) -> int:
    """Prompt tokens that were found in the prefix cache."""
    timing = (await collect(engine, request(name)))[-1].timing
    assert timing is not None
    return timing.cached_tokens


class TestForgetting:
    async def test_prompts_after_a_reset_find_nothing(self) -> None:
        async with running(math.inf) as engine:
            assert [await cached(engine, name) for name in "ab"] == [0, 96]
            assert engine.reset_prefix_cache()
            assert [await cached(engine, name) for name in "cd"] == [0, 96]

    async def test_it_is_refused_while_somebody_holds_blocks(self) -> None:
        async with running(1.0) as engine:
            stream = engine.submit(request("a", 1000))
            await anext(stream)
            assert not engine.reset_prefix_cache()
            await stream.aclose()


class TestReports:
    async def test_they_add_up(self) -> None:
        watcher = Watcher()
        async with running(math.inf) as engine:
            engine.observe(watcher)
            await asyncio.gather(*(collect(engine, request(f"r{at}", 20, prompt=50 + at)) for at in range(30)))
        assert len(watcher.arrivals) == len(watcher.endings) == 30
        assert sum(step.output_tokens for step in watcher.steps) == 30 * 20
        firsts = [first for step in watcher.steps for first in step.first_tokens]
        assert len(firsts) == 30
        assert sum(count for step in watcher.steps for _, count in step.gaps) == 30 * 19
        assert sum(first.input_tokens for first in firsts) == sum(50 + at for at in range(30))
        computed = sum(step.prefill_tokens for step in watcher.steps)
        assert computed + sum(first.cached_tokens for first in firsts) == sum(50 + at for at in range(30))

    async def test_one_that_was_given_up_ends_too(self) -> None:
        watcher = Watcher()
        async with running(1.0) as engine:
            engine.observe(watcher)
            stream = engine.submit(request("a", 5000))
            await anext(stream)
            await stream.aclose()
            await asyncio.sleep(0.05)
        (ending,) = watcher.endings
        assert (ending.finish_reason, ending.timing, ending.input_tokens) == ("abort", None, 100)
        assert ending.output_tokens >= 1
        assert len(ending.prefix_hashes) == 6

    @pytest.mark.parametrize("front_end", ["none", "0:0:2000"])
    async def test_gaps_are_those_that_a_batch_run_pools_preemptions_and_all(self, front_end: str) -> None:
        """The same requests, served live and as a batch: the same gaps between tokens, as often."""
        count, prompt, output = 12, 100, 60
        options: dict[str, Any] = {"num_gpu_blocks": 40, "max_num_seqs": 8, "max_model_len": 512}
        options |= {"enable_prefix_caching": False, "front_end": front_end}
        watcher = Watcher()
        async with running(math.inf, **options) as engine:
            engine.observe(watcher)
            wanted = [request(f"r{at}", output, prompt=prompt) for at in range(count)]
            streams = [engine.submit(one) for one in wanted]  # all before the first step
            for stream in streams:
                assert [event async for event in stream][-1].finish_reason == "length"
        sizes = np.full(count, 1)
        workload = Workload("same", np.zeros(count), sizes * prompt, sizes * output)
        model, hardware = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100")
        batch = simulate(workload, model, hardware, EngineOptions(**options))
        assert batch.totals.preemptions > 0
        assert sum(step.preempted for step in watcher.steps) == batch.totals.preemptions
        live = np.sort(np.concatenate([np.repeat(*pair) for step in watcher.steps for pair in step.gaps]))
        pooled = np.sort(np.repeat(batch.records.gaps.gap_s, batch.records.gaps.count))
        np.testing.assert_allclose(live, pooled, rtol=1e-9)


async def test_a_policy_that_breaks_ends_streams_with_the_reason_and_leaves_the_server_standing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(1.0) as engine:
        stream = engine.submit(request("a", 50))
        await anext(stream)
        monkeypatch.setattr(type(engine._scheduler), "plan", lambda scheduler, plan: 1 / 0)
        *_, last = [event async for event in stream]
        assert last.finish_reason == "error"
        assert "ZeroDivisionError" in str(last.error)
        assert engine.status().failure == last.error
        later: list[TokenEvent] = await collect(engine, request("b"))
        assert later[-1].error == last.error
    assert "simulation failed" in caplog.text
