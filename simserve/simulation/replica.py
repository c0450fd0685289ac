"""One engine instance in simulated time: plans steps, lets them take their time, and says when tokens come out."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import simpy

from simserve.latency import StepTimer
from simserve.scheduling import Request, Scheduler, StepPlan


class StepObserver(Protocol):
    """Who wants to know of every step: the recorder of a batch run, the streams of the live server."""

    def step_done(self, plan: StepPlan, start_s: float, end_s: float, finished: list[Request]) -> None:
        """``plan`` ran from ``start_s`` to ``end_s``; the requests in ``finished`` got their last token from it."""
        ...


class Replica:
    """An engine on the simulation's clock.

    With asynchronous scheduling, as in vLLM, a step is planned when the one before it starts, so that a request that
    arrives during a step waits for that step and the next; without, it is planned when the one before it ends.
    """

    def __init__(
        self,
        env: simpy.Environment,
        scheduler: Scheduler,
        timer: StepTimer,
        observer: StepObserver,
        *,
        async_scheduling: bool,
    ) -> None:
        self._env = env
        self._scheduler = scheduler
        self._timer = timer
        self._observer = observer
        self._async = async_scheduling
        self._wake = env.event()
        self._asleep = False
        self.step_in_flight = False
        env.process(self._run())

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self._scheduler.has_requests and not self.step_in_flight

    def submit(self, request: Request) -> None:
        """Queue ``request`` now; raises :class:`simserve.errors.RequestError` if it can never fit."""
        self._scheduler.add(request)
        if self._asleep and not self._wake.triggered:
            self._wake.succeed()

    def abort(self, request_id: Hashable) -> Request | None:
        """Drop a request and free its KV blocks now; None if it had ended."""
        return self._scheduler.abort(request_id)

    def _run(self) -> simpy.events.ProcessGenerator:
        planned: StepPlan | None = None
        while True:
            plan = planned if planned is not None else self._scheduler.schedule()
            if plan.is_empty:
                yield from self._sleep()
                continue
            start_s = self._env.now
            self._note_start(plan, start_s)
            planned = self._plan_ahead()
            self.step_in_flight = True
            yield self._env.timeout(self._duration_s(plan))
            self.step_in_flight = False
            finished = self._scheduler.complete(plan)
            self._note_tokens(plan, finished)
            self._observer.step_done(plan, start_s, self._env.now, finished)

    def _plan_ahead(self) -> StepPlan | None:
        if not self._async:
            return None
        plan = self._scheduler.schedule()
        return None if plan.is_empty else plan

    def _sleep(self) -> simpy.events.ProcessGenerator:
        self._asleep = True
        self._wake = self._env.event()
        yield self._wake
        self._asleep = False

    def _duration_s(self, plan: StepPlan) -> float:
        chunks = [(chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
        return self._timer.step_s(plan.num_decodes, plan.decode_context_tokens, chunks, len(plan.sampled))

    def _note_start(self, plan: StepPlan, start_s: float) -> None:
        for chunk in plan.chunks:
            if chunk.request.scheduled_s != chunk.request.scheduled_s:  # NaN: its first step
                chunk.request.scheduled_s = start_s

    def _note_tokens(self, plan: StepPlan, finished: list[Request]) -> None:
        now = self._env.now
        for chunk in plan.chunks:
            if chunk.samples and chunk.request.first_token_s != chunk.request.first_token_s:
                chunk.request.first_token_s = now
        for request in finished:
            request.finish_s = now
