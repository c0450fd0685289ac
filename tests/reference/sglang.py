"""SGLang 0.5, the obvious way: prompts alone while somebody new is estimated to fit, else a token for everybody."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from reference.blocks import CachedUnit
from reference.plan import StepPlan
from reference.request import Request
from reference.scheduler import Scheduler
from simserve.scheduling import SchedulerLimits, Status


class SGLang(Scheduler):
    alternates = True

    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self.first_ratio = min(0.7 * limits.schedule_conservativeness, 1.0)
        self.ratio_was = self.first_ratio
        self.decode_steps = 0
        self.full = False
        self.shrunk = False

    def add(self, request: Request) -> None:
        if not self.has_requests:
            self.ratio_was, self.decode_steps = self.first_ratio, 0
        super().add(request)

    def plan(self, plan: StepPlan) -> None:
        if not self.running:
            self.full = False
        budget, promised = self.limits.max_num_batched_tokens, 0.0
        in_progress = list(self.prefilling)
        for request in self.running:
            tokens = min(request.known_tokens - request.computed_tokens, budget)
            if request in self.prefilling:
                assert self.blocks.extend(request, request.computed_tokens + tokens)
                promised += self._most_new_tokens(request)
                self._take_into(plan, request, tokens)
                budget -= tokens
        if self.waiting and not self.full:
            decodes = [request for request in self.running if request not in in_progress]
            promised += sum(self._most_new_tokens(request) for request in decodes) * self._new_token_ratio()
            self._plan_waiting(plan, budget, promised)
        if not plan.chunks:
            self._plan_decodes(plan)

    def _plan_waiting(self, plan: StepPlan, budget: int, promised: float) -> None:
        self._sort_waiting()
        while self.waiting and budget > 0:
            request = self.waiting[0]
            prefix = self.blocks.find_prefix(request)
            hit_tokens = sum(len(unit.blocks) for unit in prefix) * self.limits.block_size
            tokens = request.known_tokens - hit_tokens
            if len(self.running) == self.limits.max_num_seqs or not self._fits(request, prefix, tokens, promised):
                self.full = True
                break
            if tokens > budget and self.limits.chunked_prefill:
                tokens = budget
            elif tokens > budget and plan.chunks:
                break
            assert self.blocks.admit(request, prefix, tokens, request.known_tokens)
            self._start(self.waiting.popleft(), hit_tokens)
            promised += self._most_new_tokens(request)
            self._take_into(plan, request, tokens)
            budget -= tokens

    def _fits(self, request: Request, prefix: list[CachedUnit], tokens: int, promised: float) -> bool:
        from_free = sum(block.holders == 0 for unit in prefix for block in unit.blocks)
        free_tokens = (self.blocks.free_blocks - from_free) * self.limits.block_size
        needed = tokens + self._most_new_tokens(request) + self.limits.block_size
        return not self.running or needed < free_tokens - promised

    def _most_new_tokens(self, request: Request) -> int:
        return min(request.output_tokens - request.produced_tokens, self.limits.clip_max_new_tokens)

    def _new_token_ratio(self) -> float:
        least = self.first_ratio * 0.14
        return max(self.ratio_was - self.decode_steps * ((self.first_ratio - least) / 600), least)

    def _sort_waiting(self) -> None:
        if not self.limits.longest_prefix_first or not self.limits.prefix_caching or len(self.waiting) > 128:
            return
        keys: dict[Request, int] = {}
        seen: set[Hashable] = set()
        for request in self.waiting:
            cached = sum(len(unit.blocks) for unit in self.blocks.find_prefix(request)) * self.limits.block_size
            units = self._units(request)
            shared = 0
            while shared < len(units) and units[shared][0] in seen:
                shared += 1
            shared_tokens = sum(blocks for _, blocks in units[:shared]) * self.limits.block_size
            is_twin = cached <= 32 and shared_tokens >= 32
            if cached <= 32 and not is_twin:
                seen.update(key for key, _ in units)
            keys[request] = 1 if is_twin else -cached
        self.waiting = deque(sorted(self.waiting, key=lambda request: keys[request]))

    def _units(self, request: Request) -> list[tuple[Hashable, int]]:
        units = []
        for key, blocks in request.units_of_blocks(self.limits.block_size):
            if "own" in key:
                return units
            units.append((key, blocks))
        return units

    def _plan_decodes(self, plan: StepPlan) -> None:
        left = [request for request in self.running if self._is_decoding(request)]
        if not left:
            return
        if self.shrunk:
            self.full = self.shrunk = False
        if self._blocks_needed(left) > self.blocks.free_blocks:
            self._retract(plan, left)
        else:
            self.decode_steps += 1
        for request in left:
            assert self.blocks.extend(request, request.known_tokens)
            self._take_into(plan, request, 1)

    def _blocks_needed(self, decodes: list[Request]) -> int:
        return sum(request.computed_tokens % self.limits.block_size == 0 for request in decodes)

    def _retract(self, plan: StepPlan, left: list[Request]) -> None:
        order = sorted(left, key=lambda request: (request.produced_tokens, -request.input_tokens), reverse=True)
        while self._blocks_needed(left) > self.blocks.free_blocks:
            victim = order.pop()
            left.remove(victim)
            self._preempt(plan, victim)
        self.full = False
        if left:
            expected = sum(request.produced_tokens for request in left) + 20 * len(left)
            self.ratio_was = min(expected / sum(request.output_tokens for request in left), 1.0)
            self.decode_steps = 0

    def _wait_again(self, victim: Request) -> None:
        self.waiting.append(victim)

    def abort(self, request_id: Hashable) -> Request | None:
        was_running = any(request.request_id == request_id for request in self.running)
        self.shrunk = self.shrunk or was_running
        return super().abort(request_id)

    def _finish(self, request: Request) -> None:
        self.shrunk = self.shrunk or request.status is Status.RUNNING
        super()._finish(request)
