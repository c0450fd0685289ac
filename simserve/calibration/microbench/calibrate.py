"""Measures a machine from end to end: every suite in turn, between two looks at how fast the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import reduce
from typing import Any, cast

import numpy as np

from simserve.calibration.microbench.attention import measure_attention
from simserve.calibration.microbench.bandwidth import measure_bandwidth
from simserve.calibration.microbench.bench import Bench, Pace, Progress, Series, noise_of, unquiet_of
from simserve.calibration.microbench.build import MeasuredModel, MeasuredOperators, Measurements, build_profile
from simserve.calibration.microbench.collective import measure_all_reduce
from simserve.calibration.microbench.contention import Guard
from simserve.calibration.microbench.engine import EngineUnderTest
from simserve.calibration.microbench.host import measure_host
from simserve.calibration.microbench.machine import LEAST_COLD_BYTES, Machine
from simserve.calibration.microbench.operands import Pool
from simserve.calibration.microbench.products import (
    measure_peaks,
    measure_products,
    product_shapes,
    speed_cases,
)
from simserve.calibration.microbench.small_operators import measure_small_operators
from simserve.calibration.microbench.stopwatch import CpuStopwatch, CudaStopwatch, Stopwatch
from simserve.calibration.microbench.whole_steps import FULL, GPU, QUICK, Grid, Step, series_of
from simserve.calibration.points import AllReducePoints
from simserve.errors import HardwareError
from simserve.hardware import Conditions, Dtype, HardwareProfile, HostTimes
from simserve.models import ModelSpec

MOST_UNQUIET = 0.1
"""Share of points without a quiet moment from which on nothing is believed."""
MOST_DRIFT = 0.2
LOOK_S, QUICK_LOOK_S = 1.0, 0.1
"""How long to watch the machine before anything is measured."""
WAITING_THREADS = 2
"""A step on a GPU is waited for: that its thread was not busy all the time says nothing."""
KV_SHARE = 0.3
"""Of memory, for the KV cache of the largest step."""
COLD_CACHES = 4
"""What is to be cold is gone through in so many times as much as a cache was seen to hold."""
QUICK_POOL_BYTES = 32 * 2**20
WEIGHTS = {"peaks": 4, "bandwidth": 4, "products": 25, "attention": 10, "small": 8, "steps": 60}
"""Seconds that the suites take, about; ``steps`` for each model."""
DEFAULT_MODELS = {"cpu": ("simserve/small-llama",), "cuda": ("meta-llama/Llama-3.2-1B-Instruct",)}
Report = Callable[[str, float], None]
"""Told what is being measured and the share of the whole that is done."""


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure operators and steps."""

    operators: Pace
    steps: Pace
    look_s: float


PLAN = Plan(Pace(rounds=5, block_s=0.02), Pace(rounds=5, block_s=0.0), LOOK_S)
QUICK_PLAN = Plan(Pace(rounds=2, block_s=0.002, retries=0), Pace(rounds=3, block_s=0.0, retries=0), QUICK_LOOK_S)
_ADVICE = "stop other programs, or say --allow-noise to get a profile that says how noisy it is"


def default_models(device: str) -> tuple[str, ...]:
    """Names of the models that are measured unless others are named."""
    return DEFAULT_MODELS[device]


def calibrate(name: str, machine: Machine, models: Sequence[ModelSpec], **options: Any) -> HardwareProfile:
    """Measure ``machine`` and return its profile, called ``name``, with whole steps of ``models``.

    ``options`` are those of :class:`CalibrationSession`, which also says what is raised.
    """
    session = CalibrationSession(name, machine, models, **options)
    for _ in range(session.rounds):
        session.measure_steps()
    return session.profile()


class CalibrationSession:
    """One calibration under way: operators first, then rounds of whole steps, between which other things may be done.

    The profile says how noisy it was. Raises :class:`HardwareError` if other programs left no quiet moment or the
    machine changed its speed meanwhile, unless ``allow_noise``.
    """

    def __init__(
        self,
        name: str,
        machine: Machine,
        models: Sequence[ModelSpec],
        *,
        quick: bool = False,
        allow_noise: bool = False,
        report: Report = lambda what, done: None,
        guard: Guard | None = None,
    ) -> None:
        self._name, self._machine, self._quick, self._report = name, machine, quick, report
        self._plan, self._allow_noise, guard = QUICK_PLAN if quick else PLAN, allow_noise, guard or Guard()
        if not allow_noise:
            _look_around(guard, self._plan.look_s)
        stopwatch: Stopwatch = CudaStopwatch(machine.device) if machine.kind == "gpu" else CpuStopwatch(machine.threads)
        self._operators = Bench(stopwatch, guard)
        self._steps = Bench(CpuStopwatch(machine.threads if machine.kind == "cpu" else WAITING_THREADS), guard)
        self._done, self._total = 0.0, sum(WEIGHTS.values()) + (len(models) - 1) * WEIGHTS["steps"]
        self._spent_s, self._rounds_made = 0.0, 0
        with self._measuring():
            self._pool = Pool(machine, QUICK_POOL_BYTES if quick else machine.cold_bytes)
            self._measured = self._measure_operators(models)
            self._speed = self._speed_now()
            self._all_reduce_points = self._all_reduce()
            self._models = [self._new_model(model) for model in models]

    @property
    def rounds(self) -> int:
        """How many times the steps should be measured."""
        return self._plan.steps.rounds

    def measure_steps(self) -> None:
        """One round through all whole steps of all models."""
        with self._measuring():
            for each in self._models:
                self._suite("steps", f"whole steps of {each.model.name}", 1 / self.rounds)
                each.series.round()
        self._rounds_made += 1

    def draft(self) -> HardwareProfile:
        """From the operators alone, which come out too fast: enough to plan with."""
        without_steps = [MeasuredModel(each.model, each.grid, {}, each.host) for each in self._models]
        return build_profile(self._name, self._machine, self._measurements(without_steps, 0.0))

    def profile(self) -> HardwareProfile:
        """What was measured so far."""
        with self._measuring():
            drift = self._speed_now() / self._speed - 1
        measurements = self._measurements([each.measured() for each in self._models], drift)
        if not self._allow_noise:
            _check(measurements.conditions, self._operators.disturbances + self._steps.disturbances)
        return build_profile(self._name, self._machine, measurements)

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        import torch

        start_s = time.perf_counter()
        with torch.inference_mode():
            yield
        self._spent_s += time.perf_counter() - start_s

    def _measure_operators(self, models: Sequence[ModelSpec]) -> MeasuredOperators:
        machine, bench, pace, quick, pool = (
            self._machine,
            self._operators,
            self._plan.operators,
            self._quick,
            self._pool,
        )
        peaks = measure_peaks(bench, machine, pace, quick, self._suite("peaks", "peak of matrix products"))
        bandwidth = measure_bandwidth(bench, machine, pool, pace, quick, self._suite("bandwidth", "memory"))
        shapes = product_shapes(models, quick)
        progress = self._suite("products", f"{len(shapes)} shapes of matrix products")
        cold_bytes = min(max(COLD_CACHES * bandwidth.cache_bytes, LEAST_COLD_BYTES), pool.nbytes)
        products = measure_products(bench, machine, pool, cold_bytes, shapes, pace, quick, progress)
        progress = self._suite("attention", "attention")
        attention = measure_attention(bench, machine, models[0], cold_bytes, pace, quick, progress)
        small = measure_small_operators(bench, machine, models, pace, quick, self._suite("small", "small operators"))
        return MeasuredOperators(peaks, bandwidth, products, attention, small)

    def _suite(self, name: str, what: str, share: float = 1.0) -> Progress:
        """Begin with the suite ``name``, or a ``share`` of it; it says how far it is by itself."""
        before, whole = self._done, share * WEIGHTS[name] / self._total
        self._done = min(before + whole, 1.0)
        self._report(what, before)
        return lambda done: self._report(what, before + done * whole)

    def _new_model(self, model: ModelSpec) -> _ModelUnderWay:
        """``model`` in the engine, ready for its whole steps, and the host's time around them."""
        machine = self._machine
        most_tokens = int(machine.memory_bytes * KV_SHARE) // model.kv_bytes_per_token(machine.dtype_name)
        grid = QUICK if self._quick else GPU if machine.kind == "gpu" else FULL
        grid = grid.within(model.max_model_len, most_tokens)
        self._report(f"loading {model.name}", self._done)
        engine = EngineUnderTest(model, machine, grid.steps)
        host = measure_host(self._steps, machine, engine, self._plan.operators)
        series = series_of(self._steps, engine, grid, self._plan.steps)
        return _ModelUnderWay(model, grid, host, engine.row_block, series)

    def _all_reduce(self) -> AllReducePoints | None:
        """Among all devices of this machine; None, saying so, with a single one."""
        devices = self._machine.device_count
        if devices < 2:
            self._report("one device: no all-reduce to measure", self._done)
            return None
        self._report(f"all-reduce of {devices} devices", self._done)
        counts = [count for count in (2, 4, 8) if count <= devices]
        return reduce(AllReducePoints.joined, (measure_all_reduce("gpu", count) for count in counts))

    def _speed_now(self) -> float:
        """Seconds that a large product and reading memory take, as a geometric mean: whether the machine slows down."""
        timings = self._operators.measure(speed_cases(self._machine, self._pool), self._plan.operators)
        return float(np.exp(np.mean([np.log(timing.seconds) for timing in timings.values()])))

    def _measurements(self, models: list[MeasuredModel], drift: float) -> Measurements:
        timings = self._operators.timings + self._steps.timings
        conditions = Conditions(
            device=self._machine.name,
            dtype=cast(Dtype, self._machine.dtype_name),
            threads=self._machine.threads,
            versions=self._machine.versions,
            date=date.today(),
            suite="quick" if self._quick else "full",
            duration_s=round(self._spent_s, 1),
            noise=round(noise_of(timings), 4),
            unquiet=round(unquiet_of(timings), 4),
            drift=round(drift, 4),
        )
        return Measurements(self._measured, conditions, models, self._all_reduce_points)


@dataclass(frozen=True)
class _ModelUnderWay:
    """A model in the engine, and its steps."""

    model: ModelSpec
    grid: Grid
    host: HostTimes
    row_block: int
    series: Series[Step]

    def measured(self) -> MeasuredModel:
        """The median of each step so far, with the host's time around the model's."""
        whole = {
            step: replace(timing, seconds=timing.seconds + self.host.step_s + step.requests * self.host.request_s)
            for step, timing in self.series.timings(50).items()
        }
        return MeasuredModel(self.model, self.grid, whole, self.host, self.row_block)


def _look_around(guard: Guard, look_s: float) -> None:
    """Refuse a busy machine before a minute was spent on it."""
    guard.start()
    time.sleep(look_s)
    disturbance = guard.disturbance()
    if disturbance:
        raise HardwareError(f"{disturbance}, so that nothing can be measured: {_ADVICE}")


def _check(conditions: Conditions, disturbances: list[str]) -> None:
    if conditions.unquiet > MOST_UNQUIET:
        said = f" ({disturbances[-1]})" if disturbances else ""
        raise HardwareError(f"{conditions.unquiet:.0%} of the points had no quiet moment{said}: {_ADVICE}")
    if abs(conditions.drift) > MOST_DRIFT:
        raise HardwareError(
            f"the machine was {conditions.drift:+.0%} slower at the end than at the start: let it cool, or {_ADVICE}"
        )
