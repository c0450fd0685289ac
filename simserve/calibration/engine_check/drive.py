"""Runs a workload on the real engine by its own scheduler, on the wall clock, and writes down every step."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from simserve.calibration.engine_check.ledger import Composition, EngineRun, LedgerStep, RequestTimes
from simserve.errors import CapacityError
from simserve.scheduling import Request, Scheduler, StepPlan

SPIN_S = 2e-3
"""Sleeping is not exact: the last moment before an arrival is waited for awake."""

Execute = Callable[[StepPlan], None]
"""Runs a plan on the real engine and returns when its tokens are there."""


class Clock(Protocol):
    """Seconds since the run's start."""

    def now(self) -> float: ...

    def wait_until(self, time_s: float) -> None: ...


class WallClock:
    """Starts at 0 when it is made."""

    def __init__(self) -> None:
        self._start_s = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._start_s

    def wait_until(self, time_s: float) -> None:
        left_s = time_s - self.now()
        if left_s > SPIN_S:
            time.sleep(left_s - SPIN_S)
        while self.now() < time_s:
            pass


def drive(scheduler: Scheduler, execute: Execute, requests: list[Request], clock: Clock) -> EngineRun:
    """Serve ``requests``, sorted by arrival: look for arrivals, plan, run, complete, and again.

    A step's time goes from one look for arrivals to the next, so that it holds all that the engine does between two
    tokens. An idle engine looks exactly when the next request comes: waking up late counts to the step.
    """
    steps: list[LedgerStep] = []
    coming = iter(requests)
    upcoming = next(coming, None)
    look_s = 0.0
    while upcoming is not None or scheduler.has_requests:
        if upcoming is not None and not scheduler.has_requests:
            look_s = upcoming.arrival_s
            clock.wait_until(look_s)
        while upcoming is not None and upcoming.arrival_s <= look_s:
            scheduler.add(upcoming)
            upcoming = next(coming, None)
        plan = scheduler.schedule(list_decodes=True)
        if plan.is_empty:
            if not plan.preempted:
                raise CapacityError("the engine has requests and none of them can run: give it more KV blocks")
            continue
        composition = Composition.of(plan)
        execute(plan)
        finished = scheduler.complete(plan)
        start_s, look_s = look_s, clock.now()
        steps.append(LedgerStep(composition, start_s, look_s - start_s))
        for chunk in plan.chunks:
            if chunk.samples and chunk.request.first_token_s != chunk.request.first_token_s:  # NaN: its first
                chunk.request.first_token_s = look_s
        for request in finished:
            request.finish_s = look_s
    return EngineRun(steps, RequestTimes.of(requests))
