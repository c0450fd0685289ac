"""Predicted beside measured: each step, each request, and the means that people look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simserve.calibration.engine_check.ledger import EngineRun, Floats, LedgerStep, RequestTimes
from simserve.calibration.engine_check.replay import replay
from simserve.config import EngineOptions
from simserve.hardware import HardwareProfile
from simserve.latency import StepTimer
from simserve.metrics.latency import e2e_s, tpot_s, ttft_s
from simserve.metrics.records import Records
from simserve.models import ModelSpec
from simserve.simulation import EngineSetup, prepare, simulate
from simserve.workload import Workload

LATENCIES: dict[str, Callable[[Records], Floats]] = {"TTFT": ttft_s, "TPOT": tpot_s, "E2E": e2e_s}
KINDS = ("decode", "prefill", "mixed")


@dataclass(frozen=True)
class StepError:
    """How far predicted steps of one kind are off, relative to the measured ones; signed ``bias`` is of their sum."""

    kind: str
    steps: int
    measured_s: float
    """Their median."""
    median: float
    p95: float
    bias: float


@dataclass(frozen=True)
class LatencyError:
    """The mean of one latency over all requests, and how far off single requests are; seconds.

    ``measured_s`` is the median over the runs, ``spread`` how far apart they are themselves, largest - smallest over
    that median: no prediction can be held to less.
    """

    metric: str
    measured_s: float
    spread: float
    predicted_s: float
    request_median: float
    """Median over requests of the absolute relative error."""

    @property
    def error(self) -> float:
        return self.predicted_s / self.measured_s - 1


@dataclass(frozen=True)
class EngineCheck:
    """Everything that came of holding a simulation against runs of the real engine."""

    workload: Workload
    setup: EngineSetup
    runs: list[EngineRun]
    predicted: Records
    difference: str | None
    """Where the simulation, given the engine's own durations, first put other requests into a step; None: nowhere."""
    steps: list[StepError]
    latencies: list[LatencyError]

    @property
    def worst(self) -> float:
        """The largest error that counts: of the three means, and of the median over all steps."""
        return max(self.all_steps.median, *(abs(latency.error) for latency in self.latencies))

    @property
    def all_steps(self) -> StepError:
        return self.steps[-1]

    @property
    def disturbed(self) -> list[str]:
        """Who else used the machine, for each run that was disturbed."""
        return [run.disturbance for run in self.runs if run.disturbance]


def check(
    workload: Workload,
    model: ModelSpec,
    hardware: HardwareProfile,
    options: EngineOptions,
    runs: Sequence[EngineRun],
) -> EngineCheck:
    """Hold ``runs``, all of ``workload``, against what the simulation makes of it.

    ``options`` are those of the real engine, which plans a step when the one before it has ended.
    """
    options = replace(options, async_scheduling=False)
    setup = prepare(model, hardware, options)
    predicted = simulate(workload, model, hardware, options).records
    differences = [replay(workload, setup.new_scheduler(), run.steps).difference for run in runs]
    steps = [step for run in runs for step in run.steps]
    return EngineCheck(
        workload=workload,
        setup=setup,
        runs=list(runs),
        predicted=predicted,
        difference=next((difference for difference in differences if difference), None),
        steps=step_errors(steps, setup.timer),
        latencies=[_latency_error(metric, [run.times for run in runs], predicted) for metric in LATENCIES],
    )


def predicted_steps_s(steps: Sequence[LedgerStep], timer: StepTimer) -> Floats:
    """What ``timer`` says of each of ``steps``."""
    compositions = [step.composition for step in steps]
    return np.array(
        [timer.step_s(len(c.decodes), c.decode_context_tokens, c.lengths, len(c.sampled)) for c in compositions]
    )


def step_errors(steps: Sequence[LedgerStep], timer: StepTimer) -> list[StepError]:
    """By kind of step, for the kinds there are, and then over all of them."""
    kinds = np.array([step.composition.kind for step in steps])
    measured_s = np.array([step.duration_s for step in steps])
    predicted_s = predicted_steps_s(steps, timer)
    found = []
    for kind in (*KINDS, "all"):
        chosen = np.full(len(steps), True) if kind == "all" else kinds == kind
        if chosen.any():
            found.append(_step_error(kind, measured_s[chosen], predicted_s[chosen]))
    return found


def _step_error(kind: str, measured_s: Floats, predicted_s: Floats) -> StepError:
    median, p95 = np.percentile(np.abs(predicted_s / measured_s - 1), (50, 95))
    bias = predicted_s.sum() / measured_s.sum() - 1
    return StepError(kind, len(measured_s), float(np.median(measured_s)), float(median), float(p95), float(bias))


def _latency_error(metric: str, times: Sequence[RequestTimes], predicted: Records) -> LatencyError:
    measured_s = np.array([each.latencies_s[metric] for each in times])
    predicted_s = LATENCIES[metric](predicted)
    means = np.nanmean(measured_s, axis=1)
    middle = float(np.median(means))
    off = np.abs(predicted_s / np.median(measured_s, axis=0) - 1)
    return LatencyError(
        metric, middle, float(np.ptp(means)) / middle, float(np.nanmean(predicted_s)), float(np.nanmedian(off))
    )
