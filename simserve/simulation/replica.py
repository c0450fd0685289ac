"""One engine instance in simulated time: plans steps, lets them take their time, and says when tokens come out.

A replica has one SimPy event under way at most: the end of a *run*, which is a step, or as many decode steps as can
pass before anything happens. A request that arrives in the middle shortens the run to the step it must be seen at.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable
from itertools import accumulate
from typing import Protocol

import numpy as np
import numpy.typing as npt
import simpy

from simserve.latency import StepTimer
from simserve.scheduling import Request, Scheduler, StepPlan
from simserve.simulation.arrivals import Alarm

MOST_REPEATS = 2048
"""Steps in one run at most: enough to make their cost vanish, few enough to be cheap to throw away."""


Floats = npt.NDArray[np.float64]


class Run:
    """``plan`` from ``start_s`` on: ``durations_s`` of its ``steps`` (a number if it is one step), which end at
    ``ends_s``; the last begins at ``last_start_s`` and ends at ``end_s``.

    A front end sends the tokens of the last step ``lag_s`` later, and those of each step ``gaps_s`` (None: its
    duration) after those of the step before.
    """

    __slots__ = ("_durations_s", "_ends_s", "end_s", "gaps_s", "lag_s", "last_start_s", "plan", "start_s", "steps")

    def __init__(self, plan: StepPlan, start_s: float, durations_s: Floats | list[float] | float) -> None:
        self.plan = plan
        self.start_s = self.last_start_s = start_s
        self.lag_s = 0.0
        self.gaps_s: Floats | list[float] | None = None
        self._durations_s = durations_s
        self._ends_s: Floats | list[float] | None = None
        if isinstance(durations_s, float):
            self.steps = 1
            self.end_s = start_s + durations_s
            return
        self.steps = len(durations_s)
        if isinstance(durations_s, list):
            self._ends_s = list(accumulate(durations_s, initial=start_s))
            self.last_start_s, self.end_s = self._ends_s[-2:]
            del self._ends_s[0]
        else:
            ends = np.array(durations_s)
            ends[0] += start_s
            self._ends_s = np.add.accumulate(ends, out=ends)
            self.last_start_s, self.end_s = ends[-2:].tolist()

    @property
    def durations_s(self) -> Floats | list[float]:
        seconds = self._durations_s
        return [seconds] if isinstance(seconds, float) else seconds

    @property
    def ends_s(self) -> Floats | list[float]:
        return [self.end_s] if self._ends_s is None else self._ends_s

    @property
    def sent_s(self) -> float:
        """When clients got the tokens of the last step."""
        return self.end_s + self.lag_s

    def shorten(self, steps: int) -> None:
        """Keep the first ``steps`` steps only."""
        ends_s = self._ends_s = self.ends_s[:steps]
        self._durations_s = self.durations_s[:steps]
        self.steps = steps
        self.end_s = float(ends_s[-1])
        self.last_start_s = float(ends_s[-2]) if steps > 1 else self.start_s


class StepObserver(Protocol):
    """Who wants to know what ran: the recorder of a batch run, the streams of the live server."""

    def run_done(self, run: Run, finished: list[Request]) -> None:
        """``run`` is over; the requests in ``finished`` got their last token from its last step."""
        ...


class Replica:
    """An engine on the simulation's clock.

    With asynchronous scheduling, as in vLLM, a step is planned when the one before it starts, so that a request that
    arrives during a step waits for that step and the next; without, it is planned when the one before it ends.
    ``list_decodes`` is for observers that want every step by itself, with the names of its decodes; ``may_halt`` for
    a machine that may fail, which has to know whose tokens a step would have brought.
    """

    __slots__ = (
        "_aborting", "_async", "_env", "_list_decodes", "_may_halt", "_observer", "_on_rings", "_overtaken", "_planned",
        "_run", "_scheduler", "_sent_s", "_timer", "_wake", "most_repeats",
    )  # fmt: skip

    def __init__(
        self,
        env: simpy.Environment,
        scheduler: Scheduler,
        timer: StepTimer,
        observer: StepObserver,
        *,
        async_scheduling: bool,
        list_decodes: bool = False,
        may_halt: bool = False,
    ) -> None:
        self._env = env
        self._scheduler = scheduler
        self._timer = timer
        self._observer = observer
        self._async = async_scheduling
        self.most_repeats = 1 if list_decodes else MOST_REPEATS
        self._list_decodes = list_decodes
        self._may_halt = may_halt
        self._overtaken: list[Request] = []
        """Who gets a token from the last step of the run in flight, where the step after it is planned already."""
        self._run: Run | None = None
        self._planned: StepPlan | None = None
        self._aborting: list[Hashable] = []
        self._on_rings = (self._on_wake,)
        self._wake = self._new_alarm()
        self._sent_s = 0.0
        """When clients got the tokens of the last run."""

    @property
    def run_in_flight(self) -> Run | None:
        return self._run

    @property
    def step_in_flight(self) -> bool:
        return self._run is not None

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return self._run is None and not self._scheduler.has_requests

    def submit(self, request: Request) -> None:
        """Queue ``request`` now; raises :class:`simserve.errors.RequestError` if it can never fit."""
        run = self._run
        if run is not None:
            self._plan_ahead_if_due(run)
        self._scheduler.add(request)
        if run is not None:
            if run.steps > 1 and not self._scheduler.admission_is_blocked:
                self._shorten(run)
        elif not self._wake.is_set:
            self._wake.set(self._env.now)

    def abort(self, request_id: Hashable) -> None:
        """Drop a request and free its KV blocks: at once if the engine is idle, else when the next step is planned."""
        if self._run is None:
            self._scheduler.abort(request_id)
            return
        self._plan_ahead_if_due(self._run)
        self._aborting.append(request_id)
        if self._run.steps > 1:
            self._shorten(self._run)

    def halt(self) -> list[Request]:
        """Stop now and for ever, as a machine that fails: the steps under way are lost.

        Returns who was here, each with the progress of the steps that had ended. Needs ``may_halt``.
        """
        lost = self._lost_steps()
        self._run = self._planned = None
        self._wake = self._new_alarm()
        talking = {request for request in self._scheduler.running.values() if request.decode_offset is not None}
        requests = [request for request in self._scheduler.abort_all() if request.request_id not in self._aborting]
        for plan, sampled in lost:
            talking.update(sampled, plan.pausing)
            for request in sampled:
                request.produced_tokens -= 1
                request.computed_tokens -= 1
            for chunk in plan.chunks:
                chunk.request.computed_tokens -= chunk.tokens - chunk.samples
        for plan, _ in lost:
            talking.difference_update(plan.returning, (chunk.request for chunk in plan.chunks))
        for request in talking:
            request.last_token_s = self._sent_s
        return requests

    def _lost_steps(self) -> list[tuple[StepPlan, list[Request]]]:
        """Steps that have not ended, with those who would have got a token; what has ended is told to the observer."""
        run, planned = self._run, self._planned
        if run is None:
            return []
        done = bisect_right(run.ends_s, self._env.now)
        lost = []
        if planned is None:
            if run.plan.repeat > 1:
                self._scheduler.settle(run.plan, max(done, 1))
            if done == 0:
                return [(run.plan, self._scheduler.sampling(run.plan))]
        else:
            lost.append((planned, self._scheduler.sampling(planned)))
        if done < run.steps:
            if planned is not None:
                lost.append((run.plan, self._overtaken))
                if done == 0:
                    return lost
                run.plan.repeat = done
            run.shorten(done)
            if planned is not None:
                self._observer.run_done(run, [])
                self._sent_s = run.sent_s
                return lost
        self._complete(run)
        return lost

    def _new_alarm(self) -> Alarm:
        return Alarm(self._env, self._on_rings, before_others=False)

    def _on_wake(self, event: simpy.Event) -> None:
        if event is not self._wake:
            return  # the run it stood for was shortened
        run = self._run
        if run is None:
            now = self._env.now
        else:
            if self._planned is None:
                if run.plan.repeat > 1:
                    self._scheduler.settle(run.plan, run.steps)
                if self._async:
                    self._planned = self._schedule()
            self._complete(run)
            now = run.end_s
        plan = self._planned
        if plan is None:
            plan = self._schedule()
        else:
            self._planned = None
            if not plan.num_decodes and not plan.chunks:
                self._note_pauses(plan)
                plan = self._schedule()
        while plan.preempted and plan.is_empty:  # somebody made room for others, who can run now
            self._note_pauses(plan)
            plan = self._schedule()
        if plan.pausing or plan.stalling is not None:
            self._note_pauses(plan)
        if plan.num_decodes or plan.chunks:
            self._begin(plan, now)
        else:
            self._run = None

    def _complete(self, run: Run) -> None:
        plan, end_s = run.plan, run.end_s
        finished = self._scheduler.complete(plan)
        for chunk in plan.chunks:
            if chunk.samples and chunk.request.first_token_s != chunk.request.first_token_s:  # NaN: its first
                chunk.request.first_token_s = end_s
        for request in finished:
            request.finish_s = end_s
        self._observer.run_done(run, finished)
        self._sent_s = end_s + run.lag_s

    def _begin(self, plan: StepPlan, now: float) -> None:
        steps = plan.repeat
        if steps > 1 and not self._somebody_came():
            run = Run(plan, now, self._timer.decode_steps_s(plan.num_decodes, plan.decode_context_tokens, steps))
        else:
            chunks = []
            for chunk in plan.chunks:
                chunks.append((chunk.tokens, chunk.context_tokens))
                request = chunk.request
                if request.scheduled_s != request.scheduled_s:  # NaN: its first step
                    request.scheduled_s = now
            decodes = plan.num_decodes
            sampled = decodes + plan.num_sampled_chunks
            run = Run(plan, now, self._timer.step_s(decodes, plan.decode_context_tokens, chunks, sampled))
        self._run = run
        self._wake.set(run.end_s)

    def _somebody_came(self) -> bool:
        """Whether, since the plan was made, something came that must be seen when its first step starts."""
        return bool(self._aborting) or (len(self._scheduler.waiting) > 0 and not self._scheduler.admission_is_blocked)

    def _note_pauses(self, plan: StepPlan) -> None:
        for request in plan.pausing:
            request.last_token_s = self._sent_s
        if plan.stalling is not None:
            plan.stalling.last_token_s = self._sent_s

    def _schedule(self) -> StepPlan:
        if self._aborting:
            for request_id in self._aborting:
                self._scheduler.abort(request_id)
            self._aborting.clear()
        return self._scheduler.schedule(self.most_repeats, self._list_decodes)

    def _plan_ahead(self, run: Run) -> None:
        self._scheduler.settle(run.plan, run.steps)
        if self._may_halt:
            self._overtaken = self._scheduler.sampling(run.plan)
        self._planned = self._schedule()

    def _plan_ahead_if_due(self, run: Run) -> None:
        """Planning happens when the last step of a run starts, but nobody can tell before somebody comes later."""
        if self._async and self._planned is None and self._env.now > run.last_start_s:
            self._plan_ahead(run)

    def _shorten(self, run: Run) -> None:
        """Let the run end with the first step after which whoever came now can be seen."""
        step = bisect_left(run.ends_s, self._env.now)
        steps = step + 2 if self._async else step + 1
        if self._planned is None and steps < run.steps:
            run.shorten(steps)
            self._wake = self._new_alarm()
            self._wake.set(run.end_s)
