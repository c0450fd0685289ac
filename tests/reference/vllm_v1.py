"""vLLM V1's scheduler, the obvious way: every step visits every request (``vllm/v1/core/sched/scheduler.py``, 0.19).

No prefill or decode phases: in each step every request may catch up to the tokens it knows, running requests first
and in order, within one token budget; waiting ones after, first come first served, only if nobody was preempted.
"""

from __future__ import annotations

from collections import deque

from reference.plan import StepPlan
from reference.request import Request
from reference.scheduler import Scheduler
from simserve.scheduling import Status


class VllmV1(Scheduler):
    """First come first served; blocks that are short are taken from the newest running request."""

    def plan(self, plan: StepPlan) -> None:
        budget = self._schedule_running(plan, self.limits.max_num_batched_tokens)
        if not plan.preempted:
            self._schedule_waiting(plan, budget)

    def _schedule_running(self, plan: StepPlan, budget: int) -> int:
        index = 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            tokens = self._tokens_wanted(request, request.computed_tokens, budget)
            if tokens > 0:
                index, budget = self._make_room(plan, request, tokens, index, budget)
                if request.status is Status.PREEMPTED:
                    continue  # by priority others may still go on, as in later versions
                self._take_into(plan, request, tokens)
                budget -= tokens
            index += 1
        return budget

    def _make_room(self, plan: StepPlan, request: Request, tokens: int, index: int, budget: int) -> tuple[int, int]:
        """Preempt until ``request`` has its blocks or is preempted itself; the new index of it, and the new budget."""
        while not self.blocks.extend(request, request.computed_tokens + tokens):
            victim = self._victim()
            index -= self.running.index(victim) < index
            budget += self._preempt(plan, victim)
            if victim is request:
                break
        return index, budget

    def _victim(self) -> Request:
        return self.running[-1]

    def _schedule_waiting(self, plan: StepPlan, budget: int) -> None:
        started = self._schedule_first(plan, budget)
        while started:
            budget -= started
            started = self._schedule_first(plan, budget)

    def _schedule_first(self, plan: StepPlan, budget: int) -> int:
        """Start the first in line; the tokens it got, 0 if it cannot start."""
        limits = self.limits
        if not self.waiting or budget <= 0 or len(self.running) >= limits.max_num_seqs:
            return 0
        request = self.waiting[0]
        prefix = self.blocks.find_prefix(request)
        hit_tokens = sum(len(unit.blocks) for unit in prefix) * limits.block_size
        if not limits.chunked_prefill and request.known_tokens - hit_tokens > budget:
            return 0
        tokens = self._tokens_wanted(request, hit_tokens, budget)
        reserve = request.known_tokens if limits.reserve_full_prompt else hit_tokens + tokens
        if not self.blocks.admit(request, prefix, tokens, reserve, self._keep_free()):
            return 0
        self._start(self.waiting.popleft(), hit_tokens)
        self._take_into(plan, request, tokens)
        return tokens

    def _tokens_wanted(self, request: Request, computed_tokens: int, budget: int) -> int:
        if request.produced_tokens >= request.output_tokens:
            return 0
        tokens = request.known_tokens - computed_tokens
        if self.limits.long_prefill_token_threshold:
            tokens = min(tokens, self.limits.long_prefill_token_threshold)
        return min(tokens, budget)


class VllmV1Adapters(VllmV1):
    """With LoRA: who waits for one adapter too many is put aside, and back in its place when the step is planned."""

    most_adapters = 1

    def _schedule_waiting(self, plan: StepPlan, budget: int) -> None:
        put_aside: list[Request] = []
        while True:
            computing = [chunk.request for chunk in plan.chunks] + plan.decodes
            adapters = {request.adapter for request in computing if request.adapter}
            while self.waiting and self._is_one_too_many(self.waiting[0], adapters):
                put_aside.append(self.waiting.popleft())
            started = self._schedule_first(plan, budget)
            if not started:
                break
            budget -= started
        self.waiting.extendleft(reversed(put_aside))

    def _is_one_too_many(self, request: Request, adapters: set[int]) -> bool:
        return bool(request.adapter) and request.adapter not in adapters and len(adapters) == self.most_adapters


class VllmV1Priority(VllmV1):
    """``--scheduling-policy priority``: the smallest (priority, arrival) is next, the largest is preempted."""

    def add(self, request: Request) -> None:
        super().add(request)
        self._sort()

    def _wait_again(self, victim: Request) -> None:
        self.waiting.append(victim)
        self._sort()

    def _sort(self) -> None:
        self.waiting = deque(sorted(self.waiting, key=_urgency))

    def _victim(self) -> Request:
        return max(self.running, key=_urgency)


def _urgency(request: Request) -> tuple[int, float, int]:
    return (request.priority, request.arrival_s, request.number)
