"""SGLang 0.5 (``managers/scheduler.py``, ``schedule_policy.py``, ``schedule_batch.py``): prompts first, in chunks.

A step is prompts alone while somebody new fits, else decodes alone. Who fits is a matter of estimate: running requests
are expected to need ``new_token_ratio`` of what they may still produce. The ratio falls with every decode step; when
memory runs out all the same, decodes are retracted and it jumps up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import ClassVar

from simserve.scheduling.kv_cache import PrefixHit
from simserve.scheduling.plan import StepPlan
from simserve.scheduling.request import RUNNING, Request, Status
from simserve.scheduling.scheduler import Options, Scheduler, SchedulerLimits
from simserve.scheduling.waiting import FcfsQueue

FIRST_RATIO = 0.7
LEAST_RATIO = 0.14
"""Of the first ratio."""
DECAY_STEPS = 600
RETRACT_AHEAD_STEPS = 20
"""Tokens that each of those left after a retraction is expected to get at least."""

LONGEST_QUEUE_TO_SORT = 128
TWIN_TOKENS = 32
"""A waiting request shares so much with one before it, and has no more in the cache: it waits for that one's prefix."""


class NewTokenRatio:
    """Share of what requests may still produce that memory is kept for."""

    def __init__(self, conservativeness: float) -> None:
        self._first = min(FIRST_RATIO * conservativeness, 1.0)
        self._least = self._first * LEAST_RATIO
        self._decay = (self._first - self._least) / DECAY_STEPS
        self.restart()

    def restart(self) -> None:
        self.set_to(self._first)

    def set_to(self, ratio: float) -> None:
        self._set_to, self.decode_steps = min(ratio, 1.0), 0

    @property
    def now(self) -> float:
        return max(self._set_to - self.decode_steps * self._decay, self._least)


class ArrivalQueue(FcfsQueue):
    """First come, first served; a retracted request queues up again at the end."""

    push_front = deque.append


class SGLang(Scheduler):
    """First come first served, or longest cached prefix first (``--schedule-policy lpm``).

    Prompts in one step have ``max_num_batched_tokens`` tokens at most. Once somebody did not fit, nobody is tried until
    a request has ended; as in SGLang that is noticed at the next decode step.
    """

    options: ClassVar[Options] = {
        "enable_prefix_caching": True,
        "enable_chunked_prefill": True,
        "chunked_prefill_size": 8192,
        "max_num_seqs": 2048,
        "async_scheduling": True,
        "schedule_policy": "fcfs",
        "schedule_conservativeness": 1.0,
    }
    alternates = True

    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self.waiting = self._line = ArrivalQueue()
        self.new_token_ratio = NewTokenRatio(limits.schedule_conservativeness)
        self._full = self._shrunk = False
        self._long: dict[Request, None] = {}

    @property
    def admission_is_blocked(self) -> bool:
        return self._full and not self._shrunk

    def add(self, request: Request) -> None:
        """See :meth:`Scheduler.add`; an idle engine starts over with its estimate."""
        if not self.has_requests:
            self.new_token_ratio.restart()
        super().add(request)

    def settle(self, plan: StepPlan, steps: int) -> None:
        """See :meth:`Scheduler.settle`."""
        self.new_token_ratio.decode_steps += steps - 1
        super().settle(plan, steps)

    def plan(self, plan: StepPlan) -> None:
        if not self.running:
            self._full = False
        budget = self._continue_chunk(plan)
        if self._line and not self._full:
            self._plan_waiting(plan, budget)
        if plan.chunks:
            plan.decodes_wait = True
        elif self._decoding.count:
            self._plan_decodes(plan)

    def _continue_chunk(self, plan: StepPlan) -> int:
        """The prompt in progress, whose blocks nobody can have taken, goes on; returns what is left of the budget."""
        budget = self.limits.max_num_batched_tokens
        for request in list(self._prefilling):
            tokens = min(request.known_tokens - request.computed_tokens, budget)
            known = request.computed_tokens + tokens
            self.blocks.take(self.blocks.blocks_for(known) - self.blocks.blocks_for(request.computed_tokens))
            self.compute(plan, request, tokens)
            budget -= tokens
        return budget

    def _plan_waiting(self, plan: StepPlan, budget: int) -> None:
        limits = self.limits
        if limits.longest_prefix_first and limits.prefix_caching and len(self._line) <= LONGEST_QUEUE_TO_SORT:
            self._sort_line()
        promised = self._expected_tokens(plan.index) * self.new_token_ratio.now
        promised += sum(self._most_new_tokens(chunk.request) for chunk in plan.chunks if chunk.samples)
        while self._line and budget > 0:
            request = self._line.peek()
            hit = self.blocks.find(request)
            tokens = request.known_tokens - hit.blocks * limits.block_size
            if not self._fits(request, hit, tokens, promised):
                self._full = True
                return
            if tokens > budget and (limits.chunked_prefill or plan.chunks):
                if not limits.chunked_prefill:
                    return
                tokens = budget
            self.admit(plan, request, hit, tokens, request.known_tokens)
            if plan.chunks[-1].samples:
                promised += self._most_new_tokens(request)
            if request.output_tokens > limits.clip_max_new_tokens:
                self._long[request] = None
            budget -= tokens

    def _fits(self, request: Request, hit: PrefixHit, tokens: int, promised: float) -> bool:
        if len(self.running) >= self.limits.max_num_seqs:
            return False
        free_blocks = self.blocks.free_blocks - (hit.blocks - hit.held_blocks)
        needed = tokens + self._most_new_tokens(request) + self.limits.block_size
        return not self.running or needed < free_blocks * self.limits.block_size - promised

    def _most_new_tokens(self, request: Request) -> int:
        return min(request.output_tokens - request.produced_tokens, self.limits.clip_max_new_tokens)

    def _expected_tokens(self, step: int) -> int:
        """What all decodes may still produce, each of them clipped."""
        excess = 0
        for request in list(self._long):
            if request.decode_offset is not None:
                more = self._decoding.remaining_tokens_of(request, step) - self.limits.clip_max_new_tokens
                excess += max(more, 0)
                if more > 0:
                    continue
            elif request.status is RUNNING:
                continue  # its prompt is in progress
            del self._long[request]
        return self._decoding.remaining_tokens(step) - excess

    def _sort_line(self) -> None:
        """Longest cached prefix first, twins of those before them last."""
        keys: dict[Request, int] = {}
        seen: set[Hashable] = set()
        for request in self._line:
            cached = self.blocks.find(request).blocks * self.limits.block_size
            units = list(request.unit_blocks(self.limits.block_size))
            if cached <= TWIN_TOKENS:
                if self._shared_tokens(units, seen) >= TWIN_TOKENS:
                    keys[request] = 1
                    continue
                seen.update(key for key, _ in units)
            keys[request] = -cached
        ordered = sorted(self._line, key=keys.__getitem__)
        self._line.clear()
        self._line.extend(ordered)

    def _shared_tokens(self, units: list[tuple[Hashable, int]], seen: set[Hashable]) -> int:
        blocks = 0
        for key, size in units:
            if key not in seen:
                break
            blocks += size
        return blocks * self.limits.block_size

    def _plan_decodes(self, plan: StepPlan) -> None:
        if self._shrunk:
            self._full = self._shrunk = False
        blocks = self._decoding.blocks_needed(plan.index)
        if blocks > self.blocks.free_blocks:
            self._retract(plan, blocks)
            return
        self.blocks.take(blocks)
        self.new_token_ratio.decode_steps += 1

    def _retract(self, plan: StepPlan, blocks: int) -> None:
        """Those with the fewest tokens go, the longest prompt first, until the blocks of the others suffice."""
        step, decoding = plan.index, self._decoding
        produced = {
            request: decoding.produced_tokens_of(request, step)
            for request in self.running.values()
            if request.decode_offset is not None
        }
        left = sorted(produced, key=lambda request: (produced[request], -request.input_tokens), reverse=True)
        while blocks > self.blocks.free_blocks:
            victim = left.pop()
            blocks -= decoding.needs_block(victim, step)
            del self.running[victim.request_id]
            self.preempt(plan, victim)
        self.blocks.take(blocks)
        self._full = False
        if left:
            expected = sum(produced[request] for request in left) + RETRACT_AHEAD_STEPS * len(left)
            self.new_token_ratio.set_to(expected / sum(request.output_tokens for request in left))

    def _end(self, request: Request, status: Status) -> None:
        self._shrunk = self._shrunk or request.status is RUNNING
        super()._end(request, status)

    def _is_quiet(self, plan: StepPlan) -> bool:
        return not self._ending and not self._shrunk and super()._is_quiet(plan)
