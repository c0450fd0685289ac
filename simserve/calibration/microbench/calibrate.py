"""Measures a machine from end to end: every suite in turn, between two looks at how fast the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import cast

import numpy as np

from simserve.calibration.microbench.attention import measure_attention
from simserve.calibration.microbench.bandwidth import measure_bandwidth
from simserve.calibration.microbench.bench import Bench, Pace, Progress
from simserve.calibration.microbench.build import MeasuredModel, Measurements, build_profile
from simserve.calibration.microbench.collective import measure_all_reduce
from simserve.calibration.microbench.contention import Guard
from simserve.calibration.microbench.engine import EngineUnderTest
from simserve.calibration.microbench.host import measure_host
from simserve.calibration.microbench.machine import Machine
from simserve.calibration.microbench.operands import Pool
from simserve.calibration.microbench.products import measure_peaks, measure_products, product_shapes
from simserve.calibration.microbench.small_operators import measure_small_operators
from simserve.calibration.microbench.stopwatch import CpuStopwatch, CudaStopwatch, Stopwatch
from simserve.calibration.microbench.whole_steps import FULL, GPU, QUICK, measure_steps
from simserve.calibration.points import AllReducePoints
from simserve.errors import HardwareError
from simserve.hardware import Conditions, Dtype, HardwareProfile
from simserve.models import ModelSpec

MOST_UNQUIET = 0.1
"""Share of points without a quiet moment from which on nothing is believed."""
MOST_DRIFT = 0.2
LOOK_S, QUICK_LOOK_S = 1.0, 0.1
"""How long to watch the machine before anything is measured."""
DEFAULT_MODELS = {"cpu": ("simserve/small-llama",), "cuda": ("meta-llama/Llama-3.2-1B-Instruct",)}
Report = Callable[[str, float], None]
"""Told what is being measured and the share of the whole that is done."""


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure operators and steps."""

    operators: Pace
    steps: Pace
    look_s: float


PLAN = Plan(Pace(rounds=6, block_s=0.02), Pace(rounds=5, block_s=0.1), LOOK_S)
QUICK_PLAN = Plan(Pace(rounds=2, block_s=0.002, retries=0), Pace(rounds=3, block_s=0.01, retries=0), QUICK_LOOK_S)


def default_models(device: str) -> tuple[str, ...]:
    """Names of the models that are measured unless others are named."""
    return DEFAULT_MODELS[device]


def calibrate(
    name: str,
    machine: Machine,
    models: Sequence[ModelSpec],
    *,
    quick: bool = False,
    allow_noise: bool = False,
    report: Report = lambda what, done: None,
    guard: Guard | None = None,
) -> HardwareProfile:
    """Measure ``machine`` and return its profile, called ``name``, with whole steps of ``models``.

    Raises :class:`HardwareError` if other programs left no quiet moment or the machine changed its speed meanwhile,
    unless ``allow_noise``; the profile says how noisy it was either way.
    """
    guard = guard or Guard()
    plan = QUICK_PLAN if quick else PLAN
    if not allow_noise:
        _look_around(guard, plan.look_s)
    session = _Session(machine, guard, plan, quick, report)
    measured = session.run(models)
    if not allow_noise:
        _check(measured.conditions, session.disturbances)
    return build_profile(name, machine, measured)


def _look_around(guard: Guard, look_s: float) -> None:
    """Refuse a busy machine before a minute was spent on it."""
    guard.start()
    time.sleep(look_s)
    disturbance = guard.disturbance()
    if disturbance:
        raise HardwareError(f"{disturbance}, so that nothing can be measured: {_ADVICE}")


_ADVICE = "stop other programs, or say --allow-noise to get a profile that says how noisy it is"


def _check(conditions: Conditions, disturbances: list[str]) -> None:
    if conditions.unquiet > MOST_UNQUIET:
        said = f" ({disturbances[-1]})" if disturbances else ""
        raise HardwareError(f"{conditions.unquiet:.0%} of the points had no quiet moment{said}: {_ADVICE}")
    if abs(conditions.drift) > MOST_DRIFT:
        raise HardwareError(
            f"the machine was {conditions.drift:+.0%} slower at the end than at the start: let it cool, or {_ADVICE}"
        )


class _Session:
    """One calibration under way: what all suites share."""

    def __init__(self, machine: Machine, guard: Guard, plan: Plan, quick: bool, report: Report) -> None:
        self._machine, self._plan, self._quick, self._report = machine, plan, quick, report
        stopwatch: Stopwatch = CudaStopwatch(machine.device) if machine.kind == "gpu" else CpuStopwatch(machine.threads)
        self._operators = Bench(stopwatch, guard)
        self._steps = Bench(CpuStopwatch(machine.threads if machine.kind == "cpu" else 2), guard)
