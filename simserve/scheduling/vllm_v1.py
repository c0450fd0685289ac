"""vLLM V1 (``vllm/v1/core/sched/scheduler.py``, read at 0.19).

No prefill or decode phases: in each step every request may catch up to the tokens it knows, running requests first
and in order, within one token budget; waiting ones after, only if nobody was preempted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from simserve.scheduling.plan import StepPlan
from simserve.scheduling.request import NONE, Request
from simserve.scheduling.scheduler import Options, Scheduler, SchedulerLimits
from simserve.scheduling.waiting import KeyedQueue


class VllmV1(Scheduler):
    """First come first served; blocks that are short are taken from the newest running request."""

    options: ClassVar[Options] = {
        "enable_prefix_caching": True,
        "enable_chunked_prefill": True,
        "async_scheduling": True,
        "long_prefill_token_threshold": 0,
        "reserve_full_prompt": True,
        "scheduling_policy": "fcfs",
        "watermark": 0.0,
    }

    __slots__ = ()

    def plan(self, plan: StepPlan) -> None:
        budget = self.limits.max_num_batched_tokens
        decoding = self._decoding
        blocks = decoding.blocks_needed(plan.index)
        if self._prefilling or self._starved or decoding.count > budget or blocks > self.blocks.free_blocks:
            budget = self._plan_running(plan, budget)
        else:
            if blocks:
                self.blocks.take(blocks)
            budget -= decoding.count
        if self.waiting and not plan.preempted:
            self._plan_waiting(plan, budget)

    def _plan_running(self, plan: StepPlan, budget: int) -> int:
        """Decodes all at once, prefill chunks one by one; returns what is left of ``budget``."""
        decoding = self._decoding
        for request in self._starved:
            decoding.join(request, plan.index)
            plan.add_returning(request)
            request.returned_step = plan.index
        self._starved = NONE
        chunks = [(request, self._wanted(request, request.computed_tokens)) for request in self._prefilling]
        needed = decoding.count + sum(tokens for _, tokens in chunks)
        if needed > budget:
            if (
                len(chunks) != 1
                or decoding.count >= budget
                or next(reversed(self.running.values())) is not chunks[0][0]
            ):
                return self._walk_running(plan, budget)
            needed = budget
            chunks = [(chunks[0][0], budget - decoding.count)]
        blocks = decoding.blocks_needed(plan.index) + sum(self._blocks_for_chunk(*chunk) for chunk in chunks)
        if blocks > self.blocks.free_blocks:
            return self._make_room(plan, budget, needed, blocks, dict(chunks))
        self.blocks.take(blocks)
        for request, tokens in chunks:
            self.compute(plan, request, tokens)
        return budget - needed

    def _make_room(self, plan: StepPlan, budget: int, needed: int, blocks: int, chunks: dict[Request, int]) -> int:
        """Preempt from the tail until the blocks of those left suffice.

        vLLM goes through the running requests in order and preempts the last one whenever the current one finds too few
        blocks. As nobody before the current one is touched, what comes out is the shortest tail that must go.
        """
        while blocks > self.blocks.free_blocks:
            _, victim = self.running.popitem()
            if victim.decode_offset is not None:
                blocks -= self._decoding.needs_block(victim, plan.index)
                needed -= 1
            elif victim in chunks:
                tokens = chunks.pop(victim)
                blocks -= self._blocks_for_chunk(victim, tokens)
                needed -= tokens
            self.preempt(plan, victim)
        self.blocks.take(blocks)
        for request, tokens in chunks.items():
            self.compute(plan, request, tokens)
        return budget - needed

    def _walk_running(self, plan: StepPlan, budget: int) -> int:
        """Visit each request in order, as vLLM does in every step: who is served depends on who came before."""
        decodes = self._decodes_now()
        for request in decodes:
            self._decoding.leave(request, plan.index)
        walk = _Walk(list(self.running.values()), dict.fromkeys(decodes), list(plan.returning), budget)
        plan.returning = NONE
        while walk.index < len(walk.order) and walk.budget > 0:
            request = walk.order[walk.index]
            tokens = self._wanted_now(request, walk)
            if tokens:
                if not self._room_for(plan, request, tokens, walk):
                    continue  # it preempted itself; by priority others may still go on, as in later versions
                self._serve(plan, request, tokens, walk)
            walk.index += 1
        self._starved = list(walk.ready) or NONE
        for request in walk.ready:
            if request not in walk.late:
                plan.add_pausing(request)
        return walk.budget

    def _wanted_now(self, request: Request, walk: _Walk) -> int:
        if request in walk.ready:
            return 1
        if request in self._prefilling:
            return min(self._wanted(request, request.computed_tokens), walk.budget)
        return 0

    def _serve(self, plan: StepPlan, request: Request, tokens: int, walk: _Walk) -> None:
        self.blocks.take(self._blocks_for_chunk(request, tokens))
        walk.budget -= tokens
        if request not in walk.ready:
            self.compute(plan, request, tokens)
            return
        del walk.ready[request]
        self._decoding.join(request, plan.index)
        if request in walk.late:
            plan.add_returning(request)
            request.returned_step = plan.index

    def _room_for(self, plan: StepPlan, request: Request, tokens: int, walk: _Walk) -> bool:
        while self._blocks_for_chunk(request, tokens) > self.blocks.free_blocks:
            victim = self._victim(walk.order)
            walk.index -= walk.order.index(victim) < walk.index
            walk.order.remove(victim)
            del self.running[victim.request_id]
            unhashed = 0
            if victim.decode_offset is not None:
                unhashed = self._unhashed_tokens(victim, served=True)
            walk.budget += self._take_back(plan, victim)
            if victim in walk.ready:
                if victim not in walk.late:
                    unhashed = self._unhashed_tokens(victim)
                del walk.ready[victim]
                if victim not in walk.late:
                    plan.add_pausing(victim)
            self.preempt(plan, victim, unhashed)
            if victim is request:
                return False
        return True

    def _victim(self, order: list[Request]) -> Request:
        return order[-1]

    def _take_back(self, plan: StepPlan, victim: Request) -> int:
        """Take what ``victim`` was given in this very step out of it; the tokens go back to the budget."""
        if victim.decode_offset is not None:
            returning = victim in plan.returning
            self._decoding.leave(victim, plan.index)
            victim.computed_tokens += 1  # its block for this step's token is there, and goes too
            if returning:
                plan.returning.remove(victim)
            else:
                plan.add_pausing(victim)
            return 1
        given = next((chunk for chunk in plan.chunks if chunk.request is victim), None)
        if given is None:
            return 0
        plan.remove_chunk(given)
        return given.tokens

    def _plan_waiting(self, plan: StepPlan, budget: int) -> None:
        limits = self.limits
        while self.waiting and budget > 0 and not self.admission_is_blocked:
            request = self.waiting.peek()
            hit = self.blocks.find(request)
            hit_tokens = hit.blocks * limits.block_size
            received = request.received_tokens
            tokens = self._wanted(request, received if received > hit_tokens else hit_tokens)
            if tokens > budget:
                if not limits.chunked_prefill:
                    break
                tokens = budget
            reserve = request.known_tokens if limits.reserve_full_prompt or received else hit_tokens + tokens
            if not self.admit(plan, request, hit, tokens, reserve):
                if not limits.reserve_full_prompt:
                    self._head_failed = None  # it may fit a smaller budget
                break
            budget -= tokens

    def _wanted(self, request: Request, computed_tokens: int) -> int:
        tokens = request.input_tokens + request.produced_tokens - computed_tokens
        threshold = self.limits.long_prefill_token_threshold
        return min(tokens, threshold) if threshold else tokens

    def _blocks_for_chunk(self, request: Request, tokens: int) -> int:
        computed = request.computed_tokens
        return self.blocks.blocks_for(computed + tokens) - self.blocks.blocks_for(computed)


class VllmV1Priority(VllmV1):
    """The same with ``--scheduling-policy priority``: the smallest priority first, the largest is preempted."""

    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self.waiting = KeyedQueue(_urgency)
        self._added = 0

    def add(self, request: Request) -> None:
        """See :meth:`Scheduler.add`; equals go in order of coming."""
        self._added += 1
        request.number = self._added
        super().add(request)

    def _make_room(self, plan: StepPlan, budget: int, needed: int, blocks: int, chunks: dict[Request, int]) -> int:
        return self._walk_running(plan, budget)

    def _victim(self, order: list[Request]) -> Request:
        return max(order, key=_urgency)


@dataclass
class _Walk:
    """Where a walk stands: ``ready`` decodes are not served yet, ``late`` ones had no token in the step before."""

    order: list[Request]
    ready: dict[Request, None]
    late: list[Request]
    budget: int
    index: int = 0


def _urgency(request: Request) -> tuple[int, float, int]:
    return (request.priority, request.arrival_s, request.number)
