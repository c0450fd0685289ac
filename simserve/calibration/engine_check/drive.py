"""Runs a workload on a real engine, on the wall clock, and writes down every step."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from typing import Protocol

import numpy as np

from simserve.calibration.engine_check.ledger import Composition, EngineRun, LedgerStep, RequestTimes
from simserve.errors import CapacityError
from simserve.scheduling import Request

SPIN_S = 2e-3
"""Sleeping is not exact: the last moment before an arrival is waited for awake."""


class Engine(Protocol):
    """An engine that makes one step at a time."""

    @property
    def has_work(self) -> bool: ...

    def add(self, request: Request) -> None:
        """Queue ``request``, which is there from now on."""
        ...

    def step(self) -> tuple[Composition | None, Sequence[Hashable]]:
        """Run one step to its end: who was in it, and whose last token it was; None if nobody could run."""
        ...


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


def drive(engine: Engine, requests: Sequence[Request], clock: Clock) -> EngineRun:
    """Serve ``requests``, sorted by arrival and named by their row: look for arrivals, make a step, and again.

    A step's time goes from one look for arrivals to the next, so that it holds all that the engine does between two
    tokens. An idle engine looks exactly when the next request comes: waking up late counts to the step.
    """
    arrival_s = [request.arrival_s for request in requests]  # engines write down their own
    steps: list[LedgerStep] = []
    first_s: dict[Hashable, float] = {}
    last_s: dict[Hashable, float] = {}
    come, look_s = 0, 0.0
    while come < len(requests) or engine.has_work:
        if not engine.has_work:
            look_s = max(look_s, arrival_s[come])  # it may have come while the last step ran
            clock.wait_until(look_s)
        while come < len(requests) and arrival_s[come] <= look_s:
            engine.add(requests[come])
            come += 1
        composition, finished = engine.step()
        if composition is None:
            raise CapacityError("the engine has requests and none of them can run: give it more KV blocks")
        start_s, look_s = look_s, clock.now()
        steps.append(LedgerStep(composition, start_s, look_s - start_s))
        for request_id in composition.sampled:
            first_s.setdefault(request_id, look_s)
        last_s |= dict.fromkeys(finished, look_s)
    rows = range(len(requests))
    return EngineRun(
        steps,
        RequestTimes(
            np.array(arrival_s),
            np.array([first_s[row] for row in rows]),
            np.array([last_s[row] for row in rows]),
            np.array([float(request.output_tokens) for request in requests]),
        ),
    )
