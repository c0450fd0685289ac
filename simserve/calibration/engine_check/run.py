"""A check from end to end: the workload, runs of the torch engine on it, and the comparison."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from simserve.calibration.engine_check.compare import EngineCheck, check
from simserve.calibration.engine_check.drive import WallClock, drive
from simserve.calibration.engine_check.ledger import EngineRun
from simserve.calibration.engine_check.torch_engine import TorchEngine, sequences_of
from simserve.calibration.microbench.calibrate import CalibrationSession
from simserve.calibration.microbench.contention import Guard
from simserve.calibration.microbench.machine import Machine
from simserve.config import EngineOptions
from simserve.errors import HardwareError
from simserve.hardware import HardwareProfile
from simserve.models import ModelSpec
from simserve.simulation import EngineSetup, prepare, simulate
from simserve.workload import LengthDistribution, Workload, synthetic_workload

LOAD = 0.7
"""Requests come at such a share of the rate at which a full engine would answer them."""
WARM_UP_ROWS = 4
Report = Callable[[str, float], None]
"""Told what is being done and the share of the whole that is done."""


@dataclass(frozen=True)
class Wish:
    """The workload to check with; a ``rate`` of None is LOAD of what the engine is predicted to manage."""

    requests: int
    rate: float | None
    input_len: LengthDistribution
    output_len: LengthDistribution
    seed: int

    def workload(self, rate: float) -> Workload:
        return synthetic_workload(self.requests, rate, self.input_len, self.output_len, self.seed)


class ProfileSource(Protocol):
    """Where the profile comes from that is held against the engine."""

    def draft(self) -> HardwareProfile:
        """What is known before the first run: enough to choose how fast requests come."""
        ...

    def between_runs(self, share: float) -> None:
        """Called before each run and after the last, with the share that one of these calls is of all."""
        ...

    def profile(self) -> HardwareProfile:
        """The one to check; asked for after the last run."""
        ...


@dataclass(frozen=True)
class GivenProfile:
    """One that was there before."""

    hardware: HardwareProfile

    def draft(self) -> HardwareProfile:
        return self.hardware

    def between_runs(self, share: float) -> None:
        """Nothing: it stays as it is."""

    def profile(self) -> HardwareProfile:
        return self.hardware


@dataclass(frozen=True)
class MeasuredMeanwhile:
    """One whose whole steps are measured between the runs, so that a machine that drifts is the same for both."""

    session: CalibrationSession

    def draft(self) -> HardwareProfile:
        return self.session.draft()

    def between_runs(self, share: float) -> None:
        for _ in range(math.ceil(share * self.session.rounds)):
            self.session.measure_steps()

    def profile(self) -> HardwareProfile:
        return self.session.profile()


def check_engine(
    machine: Machine,
    model: ModelSpec,
    source: ProfileSource,
    options: EngineOptions,
    wish: Wish,
    repeats: int,
    *,
    allow_noise: bool = False,
    report: Report = lambda what, done: None,
    guard: Guard | None = None,
) -> EngineCheck:
    """Run ``model`` with random weights ``repeats`` times and hold the simulation on ``source``'s profile against it.

    A run that others disturbed is made again, as often as ``repeats`` in all. Raises :class:`HardwareError` if some
    remain disturbed, unless ``allow_noise``, or if the profile was calibrated on another machine.
    """
    draft = source.draft()
    check_conditions(machine, draft)
    options = _engine_options(options, wish, machine)
    workload = wish.workload(wish.rate or LOAD * _capacity(wish, model, draft, options))
    report(f"loading {model.name}", 0.0)
    runs = _Runs(machine, prepare(model, draft, options), workload, guard or Guard())
    for number in range(repeats):
        source.between_runs(1 / (repeats + 1))
        report(f"run {number + 1} of {repeats}: {len(workload)} requests", number / repeats)
        runs.make()
    source.between_runs(1 / (repeats + 1))
    while runs.disturbed and runs.made < 2 * repeats:
        report(f"a disturbed run again ({runs.disturbed[0].disturbance})", 1.0)
        runs.replace_disturbed()
    if runs.disturbed and not allow_noise:
        raise HardwareError(
            f"{len(runs.disturbed)} of {repeats} runs were disturbed ({runs.disturbed[0].disturbance}): "
            "stop other programs, or say --allow-noise to see figures that may mean little"
        )
    return check(workload, model, source.profile(), options, runs.runs)


def check_conditions(machine: Machine, hardware: HardwareProfile) -> None:
    """Raise :class:`HardwareError` if ``hardware`` was calibrated under other conditions than ``machine`` is in."""
    conditions = hardware.calibration.conditions if hardware.calibration else None
    if conditions is None:
        return
    here = {"device": machine.name, "dtype": machine.dtype_name, "threads": machine.threads}
    for name, value in here.items():
        calibrated = getattr(conditions, name)
        if calibrated != value:
            raise HardwareError(
                f"{hardware.name} was calibrated with {name} {calibrated}, and here it is {value}: "
                "calibrate again, or ask for the same"
            )


def _engine_options(options: EngineOptions, wish: Wish, machine: Machine) -> EngineOptions:
    """The engine's options: synchronous, without a prefix cache, with room for all that may run at once."""
    likely = wish.workload(1.0)  # lengths do not depend on the rate
    longest = int((likely.input_tokens + likely.output_tokens).max())
    room = 1 + (options.max_num_seqs or 1) * -(-longest // options.block_size)
    return replace(
        options,
        dtype=machine.dtype_name,
        async_scheduling=False,
        enable_prefix_caching=False,
        num_gpu_blocks=options.num_gpu_blocks or room,
    )


def _capacity(wish: Wish, model: ModelSpec, hardware: HardwareProfile, options: EngineOptions) -> float:
    """Requests per second that the engine is predicted to answer if all come at once."""
    return wish.requests / simulate(wish.workload(float("inf")), model, hardware, options).totals.duration_s


class _Runs:
    """Runs of the engine on the same workload, one after the other, with the model loaded once."""

    def __init__(self, machine: Machine, setup: EngineSetup, workload: Workload, guard: Guard) -> None:
        from simserve.engines.torch.runner import load_runner

        self._setup, self._workload, self._guard = setup, workload, guard
        self._runner = load_runner(
            setup.model,
            num_pages=setup.limits.num_blocks,
            page_tokens=setup.limits.block_size,
            device=str(machine.device),
            dtype=machine.dtype_name,
            random_weights=True,
        )
        self._run(workload.take(np.arange(min(WARM_UP_ROWS, len(workload)))))
        self.runs: list[EngineRun] = []
        self.made = 0

    @property
    def disturbed(self) -> list[EngineRun]:
        return [run for run in self.runs if run.disturbance]

    def make(self) -> None:
        """One more run."""
        self.made += 1
        self.runs.append(self._run(self._workload))

    def replace_disturbed(self) -> None:
        """Another run in place of the first that was disturbed, if it is not disturbed itself."""
        self.make()
        self.runs.remove(self.runs[-1] if self.runs[-1].disturbance else self.disturbed[0])

    def _run(self, workload: Workload) -> EngineRun:
        engine = TorchEngine(self._runner, self._setup.new_scheduler())
        sequences = sequences_of(workload, self._setup.model.vocab_size)
        self._guard.start()
        run = drive(engine, sequences, WallClock())
        return replace(run, disturbance=self._guard.disturbance())
