"""The simulation with a real engine's step durations: it must put the same requests into the same steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import cast

import simpy

from simserve.calibration.engine_check.ledger import Composition, LedgerStep, RequestTimes
from simserve.latency import StepTimer
from simserve.scheduling import Request, Scheduler
from simserve.simulation import OpenLoop, Replica, Run
from simserve.workload import Workload


@dataclass(frozen=True)
class Replayed:
    """What the simulation did with the recorded durations, and where it first did something else than the engine."""

    steps: list[Composition]
    times: RequestTimes
    difference: str | None


class _OutOfSteps(Exception):
    """The simulation wants a step that the engine never made."""


class _Recorded:
    """Answers with the recorded durations, one after the other, whatever the step."""

    def __init__(self, steps: Sequence[LedgerStep]) -> None:
        self._durations_s = iter([step.duration_s for step in steps])

    def step_s(self, *step: object) -> float:
        duration_s = next(self._durations_s, None)
        if duration_s is None:
            raise _OutOfSteps
        return duration_s


class _Ledger:
    """Writes down what each step was; see :class:`simserve.simulation.replica.StepObserver`."""

    def __init__(self) -> None:
        self.steps: list[Composition] = []

    def run_done(self, run: Run, finished: list[Request]) -> None:
        self.steps.append(Composition.of(run.plan))


def replay(workload: Workload, scheduler: Scheduler, steps: Sequence[LedgerStep]) -> Replayed:
    """Serve ``workload`` in simulated time, where the n-th step takes as long as the n-th of ``steps`` took."""
    env, ledger = simpy.Environment(), _Ledger()
    timer = cast(StepTimer, _Recorded(steps))
    replica = Replica(env, scheduler, timer, ledger, async_scheduling=False, list_decodes=True)
    requests: list[Request] = []

    def submit(request: Request) -> None:
        requests.append(request)
        replica.submit(request)

    OpenLoop(workload).start(env, submit)
    difference = None
    try:
        env.run()
    except _OutOfSteps:
        difference = f"the engine stopped after {len(steps)} steps, the simulation goes on"
    return Replayed(ledger.steps, RequestTimes.of(requests), _first_difference(ledger.steps, steps) or difference)


def _first_difference(simulated: Sequence[Composition], real: Sequence[LedgerStep]) -> str | None:
    for index, (ours, theirs) in enumerate(zip_longest(simulated, real)):
        if theirs is None or ours is None:
            return f"the engine made {len(real)} steps, the simulation {len(simulated)}"
        if ours != theirs.composition:
            return f"step {index}: the engine ran {theirs.composition}, the simulation {ours}"
    return None
