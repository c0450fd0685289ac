"""The simulation held against an engine: here a made-up one, whose steps take as long as it says."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from simserve.calibration.engine_check.compare import check
from simserve.calibration.engine_check.draw import draw_check
from simserve.calibration.engine_check.drive import WallClock, drive
from simserve.calibration.engine_check.ledger import Composition, EngineRun, LedgerStep
from simserve.calibration.engine_check.replay import replay
from simserve.config import EngineOptions
from simserve.errors import CapacityError, ConfigError
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.scheduling import Request, SchedulerLimits, VllmV1
from simserve.simulation import prepare
from simserve.simulation.sources import requests_of
from simserve.workload import UniformLength, Workload, synthetic_workload

MODEL, HARDWARE = "meta-llama/Llama-3.2-1B-Instruct", "A100"
OPTIONS = EngineOptions(max_num_seqs=8, max_num_batched_tokens=256, num_gpu_blocks=200, async_scheduling=False)


class MadeUpEngine:
    """Takes its time from ``setup``'s timer, times ``slower``, give or take ``noise``; waits on a clock of its own."""

    def __init__(
        self, slower: float = 1.0, noise: float = 0.0, seed: int = 0, limits: SchedulerLimits | None = None
    ) -> None:
        self.setup = prepare(load_model(MODEL), load_hardware(HARDWARE), OPTIONS)
        self.scheduler = VllmV1(limits) if limits else self.setup.new_scheduler()
        self._slower, self._noise = slower, noise
        self._random = np.random.default_rng(seed)
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s

    def wait_until(self, time_s: float) -> None:
        self.now_s = max(self.now_s, time_s) + 1e-5  # nobody wakes up at once

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_requests

    def add(self, request: Request) -> None:
        self.scheduler.add(request)

    def step(self) -> tuple[Composition | None, list[Hashable]]:
        plan = self.scheduler.schedule(list_decodes=True)
        while plan.is_empty and plan.preempted:
            plan = self.scheduler.schedule(list_decodes=True)
        if plan.is_empty:
            return None, []
        composition = Composition.of(plan)
        chunks = [(chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
        step_s = self.setup.timer.step_s(plan.num_decodes, plan.decode_context_tokens, chunks, plan.num_sampled)
        self.now_s += step_s * self._slower * (1 + self._noise * self._random.standard_normal())
        return composition, [request.request_id for request in self.scheduler.complete(plan)]

    def run(self, workload: Workload) -> EngineRun:
        return drive(self, list(requests_of(workload)), self)


@pytest.fixture(scope="module")
def workload() -> Workload:
    """More than the engine can take for a while, so that requests wait, are chunked and mixed."""
    return synthetic_workload(60, 60.0, UniformLength(16, 600), UniformLength(2, 60), seed=7)


def test_an_engine_with_the_same_scheduler_makes_the_same_steps(workload: Workload) -> None:
    engine = MadeUpEngine(noise=0.2)
    run = engine.run(workload)
    kinds = {step.composition.kind for step in run.steps}

    replayed = replay(workload, engine.setup.new_scheduler(), run.steps)

    assert kinds == {"decode", "prefill", "mixed"}
    assert replayed.difference is None
    assert replayed.steps == [step.composition for step in run.steps]
    for metric, seconds in run.times.latencies_s.items():
        np.testing.assert_allclose(replayed.times.latencies_s[metric], seconds, rtol=1e-9)


def test_who_comes_during_the_last_step_is_served_when_it_has_ended() -> None:
    one_step = Workload("two", np.array([0.0, 0.006]), np.array([400, 20]), np.array([1, 2]))
    engine = MadeUpEngine()

    steps = engine.run(one_step).steps

    assert steps[1].start_s < 0.006 < steps[2].start_s, "nobody else is there when the second step begins"
    for before, after in pairwise(steps):
        assert after.start_s == pytest.approx(before.start_s + before.duration_s)
    assert replay(one_step, engine.setup.new_scheduler(), steps).difference is None


def test_preemptions_are_the_same_too(workload: Workload) -> None:
    tight = SchedulerLimits(num_blocks=60, max_num_seqs=8, max_num_batched_tokens=256)
    run = MadeUpEngine(noise=0.2, limits=tight).run(workload)

    decoded = set()
    recomputed = []
    for step in run.steps:
        recomputed += [chunk for chunk in step.composition.chunks if chunk.request_id in decoded]
        decoded |= set(step.composition.decodes)
    assert recomputed, "nobody was preempted"
    assert replay(workload, VllmV1(tight), run.steps).difference is None


@pytest.mark.parametrize("cut", [slice(None, -3), slice(3, None)])
def test_an_engine_that_does_something_else_is_found_out(workload: Workload, cut: slice) -> None:
    engine = MadeUpEngine()
    steps = engine.run(workload).steps[cut]

    difference = replay(workload, engine.setup.new_scheduler(), steps).difference

    assert difference is not None
    assert difference.startswith(("the engine stopped after", "step 0: the engine ran"))


def test_another_order_of_decodes_is_another_step(workload: Workload) -> None:
    engine = MadeUpEngine()
    steps = engine.run(workload).steps
    index = next(i for i, step in enumerate(steps) if len(step.composition.decodes) > 1)
    turned = steps[index].composition.decodes[::-1]
    composition = type(steps[index].composition)(**vars(steps[index].composition) | {"decodes": turned})
    steps[index] = LedgerStep(composition, steps[index].start_s, steps[index].duration_s)

    difference = replay(workload, engine.setup.new_scheduler(), steps).difference

    assert (difference or "").startswith(f"step {index}: the engine ran")


def test_an_engine_as_fast_as_predicted_is_off_by_its_noise_alone(workload: Workload) -> None:
    runs = [MadeUpEngine(noise=0.02, seed=seed).run(workload) for seed in range(3)]

    found = check(workload, load_model(MODEL), load_hardware(HARDWARE), OPTIONS, runs)

    assert found.difference is None
    assert 0.005 < found.all_steps.median < 0.03
    assert all(abs(latency.error) < 0.03 for latency in found.latencies)
    assert all(0 < latency.spread < 0.1 for latency in found.latencies)
    assert found.worst < 0.03
    assert [step.kind for step in found.steps] == ["decode", "prefill", "mixed", "all"]


def test_an_engine_a_third_slower_is_off_by_as_much(workload: Workload) -> None:
    found = check(
        workload, load_model(MODEL), load_hardware(HARDWARE), OPTIONS, [MadeUpEngine(slower=4 / 3).run(workload)]
    )
    error = {latency.metric: latency.error for latency in found.latencies}

    assert found.all_steps.median == pytest.approx(0.25, abs=0.01)
    assert found.all_steps.bias == pytest.approx(-0.25, abs=0.01)
    assert error["TPOT"] == pytest.approx(-0.25, abs=0.05)
    assert error["TTFT"] < -0.25, "queues grow faster than steps"
    assert found.worst == max(abs(value) for value in error.values())


def test_both_are_drawn(workload: Workload, tmp_path: Path) -> None:
    found = check(workload, load_model(MODEL), load_hardware(HARDWARE), OPTIONS, [MadeUpEngine().run(workload)])

    draw_check(found, tmp_path / "check.png")

    assert (tmp_path / "check.png").stat().st_size > 10_000
    with pytest.raises(ConfigError, match="cannot be drawn"):
        draw_check(found, tmp_path / "check.txt")


def test_an_engine_without_room_says_so() -> None:
    engine = MadeUpEngine(limits=SchedulerLimits(num_blocks=3, watermark=0.9, max_num_batched_tokens=256))
    engine.scheduler.running[0] = Request(0, 1, 1)  # somebody who never ends

    with pytest.raises(CapacityError, match="give it more KV blocks"):
        drive(engine, [Request("late", 20, 2)], engine)


def test_the_wall_clock_waits_until_it_is_time() -> None:
    clock = WallClock()

    clock.wait_until(0.01)

    assert clock.now() >= 0.01
