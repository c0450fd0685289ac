"""vLLM V1's scheduler before a pipeline: up to as many batches in flight as there are stages.

A request whose last known token is in flight has nothing to compute before that batch ends, so that decodes stay
together with those of their batch; the chunks of a prompt go into successive batches. It costs the same however many
decode: those of each batch are a decode set, which stands still while other batches are planned.
"""

from __future__ import annotations

from collections.abc import Iterable

from simserve.scheduling.decode_set import DecodeSet
from simserve.scheduling.plan import StepPlan
from simserve.scheduling.request import Request, Status
from simserve.scheduling.scheduler import SchedulerLimits
from simserve.scheduling.vllm_v1 import VllmV1, VllmV1Priority


class Cohort(DecodeSet):
    """Decodes of one batch. ``homes`` tells the cohort of each decode, and is shared by all cohorts."""

    def __init__(self, block_size: int, homes: dict[Request, Cohort]) -> None:
        super().__init__(block_size)
        self._homes = homes

    def join(self, request: Request, step: int) -> None:
        super().join(request, step)
        self._homes[request] = self

    def leave(self, request: Request, step: int) -> None:
        """``request`` leaves the cohort that it is in, be it this one or another."""
        DecodeSet.leave(self._homes.pop(request), request, step)

    def needs_block(self, request: Request, step: int) -> bool:
        return self._homes[request] is self and super().needs_block(request, step)

    def pop_ended(self, last_step: int) -> list[Request]:
        last = last_step - self.stalled_steps
        self.ends[last] = [request for request in self.ends.get(last, ()) if self._homes.get(request) is self]
        return super().pop_ended(last_step)


class Pipelined(VllmV1):
    """First come first served. ``schedule`` wants fewer than ``batches`` plans that are not complete yet."""

    def __init__(self, limits: SchedulerLimits, batches: int) -> None:
        super().__init__(limits)
        self._homes: dict[Request, Cohort] = {}
        self._cohorts = [Cohort(limits.block_size, self._homes) for _ in range(batches)]
        self._nobody = Cohort(limits.block_size, self._homes)
        self._in_flight: dict[int, Cohort] = {}
        """By the index of its plan, the cohort of each batch in flight."""
        self.unsampled: dict[Request, int] = {}
        """Preempted requests that get a token from a batch in flight, by the index of its plan."""
        self._decoding: Cohort = self._nobody

    @property
    def cohort(self) -> Cohort:
        """Of the plan that was made last."""
        return self._decoding

    @property
    def admission_is_blocked(self) -> bool:
        if self.unsampled and self.waiting and self.waiting.peek() in self.unsampled:
            return True  # what it has to compute again is not all known yet
        return super().admission_is_blocked

    def schedule(self, most_repeats: int = 1, list_decodes: bool = False) -> StepPlan:
        """Plan the next batch; each plan stands for one step."""
        busy = self._in_flight.values()
        cohort = max((cohort for cohort in self._cohorts if cohort not in busy), key=_size)
        self._decoding = cohort
        plan = super().schedule(1, list_decodes)
        if plan.is_empty:
            return plan
        if plan.index - cohort.stalled_steps in cohort.ends:
            self._retire(plan.index)
        for other in self._cohorts:
            if other is not cohort:
                other.stall()
        self._in_flight[plan.index] = cohort
        return plan

    def complete(self, plan: StepPlan, ended: Iterable[Request] = ()) -> list[Request]:
        """See :meth:`Scheduler.complete`; plans end in the order in which they were made."""
        del self._in_flight[plan.index]
        if self.unsampled:
            self.unsampled = {request: index for request, index in self.unsampled.items() if index != plan.index}
        self._decoding = self._nobody
        return super().complete(plan, ended)

    def sampling(self, plan: StepPlan) -> list[Request]:
        """Who gets a token from ``plan``, which is in flight."""
        cohort, index = self._in_flight[plan.index], plan.index
        found = dict.fromkeys(chunk.request for chunk in plan.chunks if chunk.samples)
        found |= dict.fromkeys(request for request, home in self._homes.items() if home is cohort)
        found |= dict.fromkeys(self._ending.get(index, ()))
        found |= dict.fromkeys(request for request, step in self.unsampled.items() if step == index)
        return list(found)

    def resting(self) -> list[tuple[Request, Cohort]]:
        """Decodes that no batch in flight brings a token, each with its cohort."""
        busy = self._in_flight.values()
        return [(request, home) for request, home in self._homes.items() if home not in busy]

    def preempt(self, plan: StepPlan, victim: Request, unhashed: int = 0) -> None:
        index = self._sampled_in(victim)
        super().preempt(plan, victim, unhashed)
        if index is not None:
            self.unsampled[victim] = index

    def _sampled_in(self, request: Request) -> int | None:
        """The index of the plan in flight that brings ``request`` a token."""
        home = self._homes.get(request)
        for index, cohort in self._in_flight.items():
            if cohort is home or request in self._ending.get(index, ()):
                return index
        return None

    def _decodes_now(self) -> list[Request]:
        return [request for request in self.running.values() if self._homes.get(request) is self._decoding]

    def _take_back(self, plan: StepPlan, victim: Request) -> int:
        if victim.decode_offset is not None and self._homes[victim] is not self._decoding:
            return 0  # it was given nothing in this step: it is in flight
        return super()._take_back(plan, victim)

    def _unhashed_tokens(self, request: Request, *, served: bool = False) -> int:
        return 0  # nothing is planned on top of a token that is not known yet

    def _end(self, request: Request, status: Status) -> None:
        self.unsampled.pop(request, None)
        super()._end(request, status)


class PipelinedPriority(Pipelined, VllmV1Priority):
    """The same with ``--scheduling-policy priority``."""


def _size(cohort: Cohort) -> int:
    return cohort.count
