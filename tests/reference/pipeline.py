"""A pipeline, the obvious way: host, stages and links are SimPy processes, each with a queue of batches before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Protocol

import simpy

from reference.plan import StepPlan
from reference.replica import Ledger, StepEntry
from reference.request import Request
from reference.vllm_v1 import VllmV1, VllmV1Priority


class Timer(Protocol):
    stages: int

    def stations_s(self, decodes: int, context: int, chunks: list[tuple[int, int]], sampled: int) -> list[float]: ...


class Pipelined(VllmV1):
    """A request that waits for a token from a batch in flight has nothing to compute before it is there."""

    def _schedule_waiting(self, plan: StepPlan, budget: int) -> None:
        held_back = deque()
        unsampled = next((index for index, request in enumerate(self.waiting) if _waits(request)), None)
        if unsampled is not None:  # whoever is behind it in line waits too
            held_back = deque(list(self.waiting)[unsampled:])
            self.waiting = deque(list(self.waiting)[:unsampled])
        super()._schedule_waiting(plan, budget)
        self.waiting += held_back

    def _tokens_wanted(self, request: Request, computed_tokens: int, budget: int) -> int:
        return 0 if _waits(request) else super()._tokens_wanted(request, computed_tokens, budget)


class PipelinedPriority(Pipelined, VllmV1Priority):
    pass


def _waits(request: Request) -> bool:
    return request.delivered_tokens < request.produced_tokens


class PipelineReplica:
    """An engine with a batch in flight for each stage; see :mod:`simserve.simulation.pipeline`."""

    def __init__(self, env: simpy.Environment, scheduler: Pipelined, timer: Timer) -> None:
        self.ledger = Ledger()
        self.on_finished: Callable[[list[Request]], None] | None = None
        self.planned_s: list[float] = []
        self._env = env
        self._scheduler = scheduler
        self._timer = timer
        self._in_flight = 0
        self._host_is_free = True
        self._wakes = False
        self._aborting: list[Hashable] = []
        self._queues = [simpy.Store(env) for _ in range(2 * timer.stages)]
        for station in range(2 * timer.stages):
            env.process(self._serve(station))

    def submit(self, request: Request) -> None:
        self._scheduler.add(request)
        if self._in_flight == 0 and not self._wakes:
            self._wakes = True
            self._env.process(self._plan_soon())

    def abort(self, request_id: Hashable) -> None:
        if self._in_flight:
            self._aborting.append(request_id)
        else:
            self._scheduler.abort(request_id)

    def _plan_soon(self) -> simpy.events.ProcessGenerator:
        yield self._env.timeout(0)
        self._wakes = False
        self._plan()

    def _serve(self, station: int) -> simpy.events.ProcessGenerator:
        while True:
            plan, times_s = yield self._queues[station].get()
            yield self._env.timeout(times_s[station])
            if station + 1 < len(self._queues):
                self._queues[station + 1].put((plan, times_s))
            else:
                self._end(plan)
            if station == 0:
                yield self._env.timeout(0)  # a batch that ends at this very moment has ended before
                self._host_is_free = True
                self._plan()

    def _plan(self) -> None:
        """Plan the next batch if there may be one in flight more; if there is nothing to plan, wait for an end."""
        if not self._host_is_free or self._in_flight == self._timer.stages:
            return
        for request_id in self._aborting:
            self._scheduler.abort(request_id)
        self._aborting.clear()
        plan = self._scheduler.schedule()
        while plan.preempted and plan.is_empty:
            plan = self._scheduler.schedule()
        if plan.is_empty:
            return
        for chunk in plan.chunks:
            if chunk.request.scheduled_s != chunk.request.scheduled_s:
                chunk.request.scheduled_s = self._env.now
        chunks = [(chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
        times_s = self._timer.stations_s(plan.num_decodes, plan.decode_context_tokens, chunks, plan.num_sampled)
        self._in_flight += 1
        self._host_is_free = False
        self._queues[0].put((plan, times_s))

    def _end(self, plan: StepPlan) -> None:
        now = self._env.now
        self._in_flight -= 1
        finished = self._scheduler.complete(plan)
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
        self._plan()
