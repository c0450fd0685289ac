"""Ranks of a mixture of experts that step together: each has requests of its own, and all wait for the slowest.

As in vLLM, a rank with nothing to do takes part in every step with a dummy batch while any other works. A request that
comes to such a rank meanwhile is seen when that step ends.
"""

from __future__ import annotations

import simpy

from simserve.latency.expert_parallel import ExpertTimer, RankBatch
from simserve.scheduling import Scheduler, StepPlan
from simserve.simulation.arrivals import Alarm
from simserve.simulation.replica import Replica, Run, StepObserver


class Bell:
    """An alarm for all ranks, that may be called off."""

    def __init__(self, lock_step: LockStep, env: simpy.Environment) -> None:
        self._lock_step = lock_step
        self._env = env
        self.call_off()

    @property
    def is_set(self) -> bool:
        return self._alarm.is_set

    def set(self, time_s: float) -> None:
        self._alarm.set(time_s)

    def call_off(self) -> None:
        self._alarm = Alarm(self._env, (self._on_ring,), before_others=False)

    def _on_ring(self, event: simpy.Event) -> None:
        if event is self._alarm:
            self._lock_step.step()


class LockStep:
    """Has all ranks of a replica begin and end their steps together; ``ranks`` are those in use, by number."""

    def __init__(self, env: simpy.Environment, timer: ExpertTimer) -> None:
        self._env = env
        self._timer = timer
        self.bell = Bell(self, env)
        self.ranks: dict[int, LockStepRank] = {}
        self._end_s: float | None = None
        """Of the step under way."""
        self.dummy_steps = 0
        """Steps that a rank spent on a dummy batch, summed over ranks."""

    def step(self) -> None:
        """End the step under way, and begin the next if anybody has something to do."""
        now_s = self._env.now if self._end_s is None else self._end_s
        plans = {rank: rank.next_plan() for rank in self.ranks.values()}
        busy = {rank: plan for rank, plan in plans.items() if not plan.is_empty}
        if not busy:
            self._end_s = None
            return
        self.dummy_steps += len(self.ranks) - len(busy)
        seconds = self._timer.ranks_s([_batch_of(plan) for plan in busy.values()])
        for rank, plan in busy.items():
            rank.begin_together(plan, now_s, seconds)
        self._end_s = now_s + seconds
        self.bell.set(self._end_s)

    def stop(self) -> None:
        """The step under way is lost: a rank has failed, and the others can only fail too."""
        self._end_s = None
        self.bell.call_off()


class LockStepRank(Replica):
    """Rank ``number`` of those that ``lock_step`` holds together."""

    def __init__(
        self,
        env: simpy.Environment,
        scheduler: Scheduler,
        timer: ExpertTimer,
        observer: StepObserver,
        lock_step: LockStep,
        number: int,
        *,
        async_scheduling: bool,
        list_decodes: bool = False,
        may_halt: bool = False,
    ) -> None:
        super().__init__(
            env,
            scheduler,
            timer,
            observer,
            async_scheduling=async_scheduling,
            list_decodes=list_decodes,
            may_halt=may_halt,
        )
        self.most_repeats = 1
        self._lock_step = lock_step
        self._wake = lock_step.bell  # type: ignore[assignment]  # it has all that a replica asks of its alarm
        lock_step.ranks[number] = self

    def next_plan(self) -> StepPlan:
        """End the run under way, if there is one, and say what comes next; see :meth:`Replica._on_wake`."""
        run = self._run
        if run is not None:
            if self._planned is None and self._async:
                self._planned = self._schedule()
            self._complete(run)
        plan, self._planned = self._planned, None
        if plan is None or plan.is_empty:
            if plan is not None:
                self._note_pauses(plan)
            plan = self._schedule()
        while plan.preempted and plan.is_empty:  # somebody made room for others, who can run now
            self._note_pauses(plan)
            plan = self._schedule()
        self._note_pauses(plan)
        self._run = None
        return plan

    def begin_together(self, plan: StepPlan, now_s: float, seconds: float) -> None:
        """Run ``plan`` for as long as all ranks take."""
        for chunk in plan.chunks:
            if chunk.request.scheduled_s != chunk.request.scheduled_s:  # NaN: its first step
                chunk.request.scheduled_s = now_s
        self._run = Run(plan, now_s, seconds)

    def _new_alarm(self) -> Alarm:
        if hasattr(self, "_lock_step"):  # it has failed
            self._lock_step.stop()
            return self._lock_step.bell  # type: ignore[return-value]
        return super()._new_alarm()


def _batch_of(plan: StepPlan) -> RankBatch:
    chunks = [(chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
    return plan.num_decodes, plan.decode_context_tokens, chunks, plan.num_sampled
