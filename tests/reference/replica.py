"""One engine instance in simulated time: one SimPy event and a visit of every request per step, and a full ledger."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

import simpy

from reference.plan import StepPlan
from reference.request import Request
from reference.scheduler import Scheduler


class Timer(Protocol):
    def step_s(self, decodes: int, context: int, chunks: list[tuple[int, int]], sampled: int) -> float: ...


@dataclass
class StepEntry:
    """One line of the ledger: what a step did and when it ended."""

    decodes: int
    decode_context_tokens: int
    chunks: list[tuple[Hashable, int, int]]
    end_s: float


@dataclass
class Ledger:
    steps: list[StepEntry] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)


class Replica:
    """An engine on the simulation's clock; see :class:`simserve.simulation.replica.Replica` for what it must equal."""

    def __init__(self, env: simpy.Environment, scheduler: Scheduler, timer: Timer, async_scheduling: bool) -> None:
        self.ledger = Ledger()
        self.on_finished: Callable[[list[Request]], None] | None = None
        self._env = env
        self._scheduler = scheduler
        self._timer = timer
        self._async = async_scheduling
        self._wake = env.event()
        self._asleep = False
        self._in_flight = False
        self._aborting: list[Hashable] = []
        env.process(self._run())

    def submit(self, request: Request) -> None:
        self._scheduler.add(request)
        if self._asleep and not self._wake.triggered:
            self._wake.succeed()

    def abort(self, request_id: Hashable) -> None:
        if self._in_flight:
            self._aborting.append(request_id)
        else:
            self._scheduler.abort(request_id)

    def _run(self) -> simpy.events.ProcessGenerator:
        planned: StepPlan | None = None
        while True:
            plan = planned if planned is not None else self._schedule()
            if plan.is_empty:
                planned = None
                if not plan.preempted:
                    yield from self._sleep()
                continue
            self._note_start(plan)
            self._in_flight = True
            planned = self._plan_ahead()
            yield self._env.timeout(self._duration_s(plan))
            self._in_flight = False
            finished = self._scheduler.complete(plan)
            self._note_end(plan, finished)

    def _schedule(self) -> StepPlan:
        for request_id in self._aborting:
            self._scheduler.abort(request_id)
        self._aborting.clear()
        return self._scheduler.schedule()

    def _plan_ahead(self) -> StepPlan | None:
        if not self._async:
            return None
        plan = self._schedule()
        return None if plan.is_empty else plan

    def _sleep(self) -> simpy.events.ProcessGenerator:
        self._asleep = True
        self._wake = self._env.event()
        yield self._wake
        self._asleep = False

    def _duration_s(self, plan: StepPlan) -> float:
        chunks = [(chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
        return self._timer.step_s(plan.num_decodes, plan.decode_context_tokens, chunks, plan.num_sampled)

    def _note_start(self, plan: StepPlan) -> None:
        for chunk in plan.chunks:
            if chunk.request.scheduled_s != chunk.request.scheduled_s:  # NaN: its first step
                chunk.request.scheduled_s = self._env.now

    def _note_end(self, plan: StepPlan, finished: list[Request]) -> None:
        now = self._env.now
        for request in plan.sampled:
            if request.first_token_s != request.first_token_s:
                request.first_token_s = now
            else:
                self.ledger.gaps_s.append(now - request.last_token_s)
            request.last_token_s = now
        for request in finished:
            request.finish_s = now
        if self.on_finished:
            self.on_finished(finished)
        chunks = [(chunk.request.request_id, chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
        self.ledger.steps.append(StepEntry(plan.num_decodes, plan.decode_context_tokens, chunks, now))
