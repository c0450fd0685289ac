"""A replica whose model is split over pipeline stages: several batches in flight, each in another stage.

As in vLLM, the engine plans batches as long as fewer are in flight than there are stages and there is something to
plan; if there is not, it waits for the oldest batch. Whoever comes meanwhile is seen after that.

Batches go through stations (the host, the stages, the links between these) one after the other, first in, first out,
with room to wait in between. So a batch starts at a station as soon as it is there and the batch before has left, and
all its times are known when it is planned: ``start = max(there, free)``. Nothing that happens later can change them,
and one SimPy event per batch is enough; a test holds the result equal to that of stations which are SimPy processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

import simpy

from simserve.latency.pipeline import PipelineTimer
from simserve.scheduling import Cohort, Pipelined, Request, StepPlan
from simserve.simulation.replica import Replica, Run, StepObserver

HOST = 0
"""The first station."""


class Batch(Run):
    """One step on its way through the stages.

    For those who count for how long anything ran, it starts when the batch before it ended, if that was later than when
    it was planned. ``before`` is the last batch that brought its decodes a token, while it is in flight.
    """

    __slots__ = ("before", "cohort", "paused")

    def __init__(self, plan: StepPlan, start_s: float, end_s: float, cohort: Cohort, before: Batch | None) -> None:
        super().__init__(plan, start_s, end_s - start_s)
        self.end_s = end_s
        self.cohort = cohort
        self.before = before
        self.paused: list[Request] = []
        """Who was preempted while it was in flight."""

    def note_gaps(self) -> None:
        """Say how long after their last token its decodes got this one."""
        if self.before is not None:
            self.gaps_s = [max(self.sent_s - self.before.sent_s, 0.0)]


class BatchGaps:
    """Stands between a front end and ``observer``: tokens follow on those of another batch than the last one sent."""

    def __init__(self, observer: StepObserver) -> None:
        self._observer = observer

    def run_done(self, run: Run, finished: list[Request]) -> None:
        """See :class:`simserve.simulation.replica.StepObserver`."""
        assert isinstance(run, Batch)
        run.note_gaps()
        self._observer.run_done(run, finished)


class PipelineReplica(Replica):
    """An engine with several stages on the simulation's clock; see :class:`simserve.simulation.replica.Replica`."""

    def __init__(
        self,
        env: simpy.Environment,
        scheduler: Pipelined,
        timer: PipelineTimer,
        observer: StepObserver,
        *,
        list_decodes: bool = False,
    ) -> None:
        super().__init__(env, scheduler, timer, observer, async_scheduling=False, list_decodes=list_decodes)
        self._batches: deque[Batch] = deque()
        self._pipelined = scheduler
        self._stage_times = timer
        self._free_s = [0.0] * (2 * timer.stages)
        """When each station is done with what is planned: the host, then stages and links in turn."""
        self._may_plan = False
        """Whether there may be something to plan: not once a plan came out empty, before a batch ends."""
        self._wake_s = 0.0
        """What the alarm is set to."""
        self._last: dict[Cohort, Batch] = {}
        """The last batch of each cohort that has ended."""
        self._last_end_s = 0.0
        """Of the batch planned last."""

    @property
    def run_in_flight(self) -> Run | None:
        """The oldest batch."""
        return self._batches[0] if self._batches else None

    @property
    def step_in_flight(self) -> bool:
        return bool(self._batches)

    @property
    def is_idle(self) -> bool:
        return not self._batches and not self._scheduler.has_requests

    def submit(self, request: Request) -> None:
        """Queue ``request`` now; raises :class:`simserve.errors.RequestError` if it can never fit."""
        self._scheduler.add(request)
        if not self._batches and not self._wake.is_set:
            self._may_plan = True
            self._set_alarm(self._env.now)

    def abort(self, request_id: Hashable) -> None:
        """Drop a request and free its KV blocks: at once if the engine is idle, else when a batch is planned next."""
        if self._batches:
            self._aborting.append(request_id)
        else:
            self._scheduler.abort(request_id)

    def halt(self) -> list[Request]:
        """Stop now and for ever: the batches in flight are lost; see :meth:`Replica.halt`."""
        while self._batches and self._batches[0].end_s <= self._env.now:
            self._finish_batch(self._batches.popleft())
        self._wake = self._new_alarm()
        scheduler, lost = self._pipelined, [(batch, self._pipelined.sampling(batch.plan)) for batch in self._batches]
        resting = scheduler.resting()
        self._batches.clear()
        requests = [request for request in scheduler.abort_all() if request.request_id not in self._aborting]
        for request, cohort in resting:
            request.last_token_s = self._last[cohort].sent_s
        for batch, sampled in lost:
            _take_back(batch, sampled)
        return requests

    def _on_wake(self, event: simpy.Event) -> None:
        if event is not self._wake:
            return
        now_s = self._wake_s
        if self._batches and self._batches[0].end_s <= now_s:
            self._finish_batch(self._batches.popleft())
            self._may_plan = True
        if self._is_due_to_plan and self._free_s[HOST] <= now_s:
            self._plan_batch(now_s)
        self._set_alarm(now_s)

    @property
    def _is_due_to_plan(self) -> bool:
        return self._may_plan and len(self._batches) < self._stage_times.stages

    def _set_alarm(self, now_s: float) -> None:
        """To the end of the oldest batch, or to when the host can plan another one."""
        times = [self._batches[0].end_s] if self._batches else []
        if self._is_due_to_plan:
            times.append(max(self._free_s[HOST], now_s))
        if times:
            self._wake_s = min(times)
            self._wake.set(self._wake_s)

    def _plan_batch(self, now_s: float) -> None:
        plan = self._schedule()
        while plan.preempted and plan.is_empty:  # somebody made room for others, who can run now
            self._note_pauses(plan)
            plan = self._schedule()
        self._note_pauses(plan)
        if plan.is_empty:
            self._may_plan = False
        else:
            self._send_in(plan, now_s)

    def _send_in(self, plan: StepPlan, now_s: float) -> None:
        """Have ``plan`` go through host and stages from now on."""
        for chunk in plan.chunks:
            if chunk.request.scheduled_s != chunk.request.scheduled_s:  # NaN: its first step
                chunk.request.scheduled_s = now_s
        chunks = [(chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
        times_s = self._stage_times.stations_s(plan.num_decodes, plan.decode_context_tokens, chunks, plan.num_sampled)
        there_s, free_s = now_s, self._free_s
        for station, seconds in enumerate(times_s):
            there_s = free_s[station] = max(there_s, free_s[station]) + seconds
        cohort = self._pipelined.cohort
        start_s = max(now_s, self._last_end_s)
        self._batches.append(Batch(plan, start_s, there_s, cohort, self._last.get(cohort)))
        self._last_end_s = there_s

    def _finish_batch(self, batch: Batch) -> None:
        batch.note_gaps()
        self._complete(batch)
        batch.before = None
        self._last[batch.cohort] = batch
        for request in batch.paused:
            request.last_token_s = batch.sent_s

    def _note_pauses(self, plan: StepPlan) -> None:
        for request in plan.pausing:
            index = self._pipelined.unsampled.get(request)
            if index is None:
                request.last_token_s = self._last[self._pipelined.cohort].sent_s
            else:
                next(batch for batch in self._batches if batch.plan.index == index).paused.append(request)


def _take_back(batch: Batch, sampled: list[Request]) -> None:
    """``batch`` is lost: those that it would have brought a token are where they were before."""
    computed = {chunk.request for chunk in batch.plan.chunks}
    for request in sampled:
        request.produced_tokens -= 1
        request.computed_tokens -= 1
        if batch.before is not None and request not in computed and request not in batch.plan.returning:
            request.last_token_s = batch.before.sent_s
    for chunk in batch.plan.chunks:
        chunk.request.computed_tokens -= chunk.tokens - chunk.samples
