"""vLLM V1 with speculative decoding (``Scheduler.schedule``, ``update_from_output``; read at 0.19).

A decode asks for one row and as many more as tokens were drafted, gets KV slots for all of them, and advances by the
accepted ones and one more. So decodes no longer advance alike: while this is on, each is visited in every step.

With asynchronous scheduling a step is planned before it is known how many drafts the one before it accepts: slots are
given as if all were, and a request whose answer may have ended there is computed once more, in vain, as in vLLM.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from simserve.scheduling.fetching import FetchingVllmV1
from simserve.scheduling.plan import PrefillChunk, Stall, StepPlan
from simserve.scheduling.request import Request
from simserve.scheduling.scheduler import SchedulerLimits
from simserve.scheduling.vllm_v1 import VllmV1

DECODES = 0
"""Of a request's ``decode_offset`` here, where nothing but its being there counts."""


@dataclass(frozen=True)
class Drafts:
    """``acceptance[i]`` is the share of drafts whose first i + 1 tokens are all accepted; there are as many tokens.

    A drafter that has a KV cache of its own in the same blocks needs ``lookahead_tokens`` slots more.
    """

    acceptance: tuple[float, ...]
    lookahead_tokens: int
    seed: int


class SpeculativePlan(StepPlan):
    """``num_decodes`` sequences are verified in ``rows`` rows; ``gains`` says who gets how many tokens by that.

    ``padding`` of them are computed in vain: they had ended, which nobody knew. ``accepted_tokens`` of
    ``drafted_tokens`` were right, those behind the end of an answer included.
    """

    __slots__ = ("accepted_tokens", "drafted_tokens", "gains", "rows", "verified")

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.rows = 0
        self.verified: list[tuple[Request, int]] = []
        self.gains: list[tuple[Request, int]] = []
        self.drafted_tokens = self.accepted_tokens = 0

    @property
    def extra_tokens(self) -> int:
        """Tokens that came with another one of the same request."""
        return sum(gain for _, gain in self.gains) - len(self.gains)

    @property
    def drafts(self) -> int:
        """Sequences that were drafted for and verified, but for those in vain."""
        return len(self.gains)

    @property
    def tokens(self) -> int:
        """See :attr:`StepPlan.tokens`."""
        return self.rows + self.prefill_tokens

    @property
    def num_sampled(self) -> int:
        """Tokens that come out, and one for each of ``padding``."""
        return self.extra_tokens + self.num_decodes + self.num_sampled_chunks


class SpeculativeVllmV1(VllmV1):
    """First come first served; call :meth:`speculate` before the first request comes."""

    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self.speculate(Drafts((), 0, 0))

    def speculate(self, drafts: Drafts) -> None:
        """Have answers drafted from now on."""
        self._acceptance = drafts.acceptance
        self._lookahead = drafts.lookahead_tokens
        self._most_rows = len(drafts.acceptance) + 1
        self._rng = random.Random(f"drafts {drafts.seed}")
        self._last: dict[Request, tuple[int, int, int]] = {}
        """Of whom the last plan verifies: its context before, its rows, and what it gains."""
        self._unsure: set[Request] = set()
        """Who ends with the last plan, which is known only when it has run."""

    def sampling(self, plan: StepPlan) -> list[Request]:
        """See :meth:`Scheduler.sampling`; a request is there once for each token."""
        assert isinstance(plan, SpeculativePlan)
        gained = [request for request, gain in plan.gains for _ in range(gain)]
        return gained + [chunk.request for chunk in plan.chunks if chunk.samples]

    def schedule(self, most_repeats: int = 1, list_decodes: bool = False) -> StepPlan:
        """See :meth:`Scheduler.schedule`; a plan stands for one step."""
        plan = SpeculativePlan(self.steps)
        self.plan(plan)
        self._draw(plan)
        if list_decodes:
            plan.decodes = [request for request, gain in plan.gains for _ in range(gain)]
        for chunk in plan.chunks:
            if chunk.samples:
                self._begin_to_decode(chunk.request)
        if plan.is_empty:
            return plan
        self.steps += 1
        self.least_free_blocks = min(self.least_free_blocks, self.blocks.free_blocks)
        return plan

    def plan(self, plan: StepPlan) -> None:
        assert isinstance(plan, SpeculativePlan)
        budget = self.limits.max_num_batched_tokens
        order = list(self.running.values())
        index = 0
        while index < len(order) and budget > 0:
            request = order[index]
            tokens = min(self._wanted_rows(request), budget)
            if tokens:
                if not self._room_for_rows(plan, order, request, tokens):
                    break  # it was the last one, and made room for nobody
                budget -= tokens
            index += 1
        self._starve(plan, order[index:])
        if self.waiting and not plan.preempted:
            self._plan_waiting(plan, budget)

    def compute(self, plan: StepPlan, request: Request, tokens: int) -> None:
        """See :meth:`Scheduler.compute`; a chunk of one token is a chunk here."""
        context = request.computed_tokens
        samples = context + tokens == request.known_tokens
        if samples:
            self._prefilling.remove(request)
        request.computed_tokens = context + tokens
        if request.units:
            self.blocks.register_units(request)
        plan.add_chunk(PrefillChunk(request, tokens, context, samples))

    def preempt(self, plan: StepPlan, victim: Request, unhashed: int = 0) -> None:
        """See :meth:`Scheduler.preempt`."""
        starved = victim in self._starved
        super().preempt(plan, victim, unhashed)
        if starved:
            plan.pausing.remove(victim)  # since it last had a token
        self._unsure.discard(victim)

    def _wanted_rows(self, request: Request) -> int:
        if request.decode_offset is not None:
            return self._most_rows
        if request in self._unsure and self._in_flight:
            return self._most_rows
        return self._wanted(request, request.computed_tokens) if request in self._prefilling else 0

    @property
    def _in_flight(self) -> bool:
        """Whether the step before the one being planned is not through, so that nobody knows what it accepts."""
        return self._completed < self.steps - 1

    def _room_for_rows(self, plan: SpeculativePlan, order: list[Request], request: Request, tokens: int) -> bool:
        """Put ``tokens`` rows of ``request`` into the step, preempting from the tail; False if that was itself."""
        verifies = request not in self._prefilling
        slots = self._slots(request, tokens) if verifies else request.computed_tokens + tokens
        held = self.blocks.blocks_for(max(request.computed_tokens, request.allocated_tokens))
        needed = max(self.blocks.blocks_for(slots) - held, 0)
        while needed > self.blocks.free_blocks:
            victim = order.pop()
            del self.running[victim.request_id]
            self.preempt(plan, victim)
            if victim is request:
                return False
        self.blocks.take(needed)
        if not verifies:
            self.compute(plan, request, tokens)
            return True
        request.allocated_tokens = (held + needed) * self.limits.block_size
        plan.verified.append((request, tokens))
        if request in self._starved:
            self._starved.remove(request)
            plan.add_returning(request)
            request.returned_step = plan.index
        return True

    def _slots(self, request: Request, rows: int) -> int:
        """Tokens whose KV must have a place: all rows as if each were accepted, and the drafter's."""
        context = request.computed_tokens
        if self._in_flight and request in self._last:
            before, rows_before, _ = self._last[request]
            context = before + rows_before
        return min(context + rows + self._lookahead, self.most_tokens)

    def _starve(self, plan: StepPlan, unserved: Sequence[Request]) -> None:
        for request in unserved:
            if request.decode_offset is not None and request not in self._starved:
                self._starved = [*self._starved, request]
                plan.add_pausing(request)

    def _draw(self, plan: SpeculativePlan) -> None:
        """How many tokens everybody gets; who has all of them ends with this step."""
        last: dict[Request, tuple[int, int, int]] = {}
        unsure: set[Request] = set()
        for request, rows in plan.verified:
            context = request.computed_tokens
            plan.rows += rows
            plan.decode_context_tokens += context
            if request.decode_offset is None:
                plan.padding += 1
                continue
            accepted = self._accepted(rows - 1)
            left = request.output_tokens - request.produced_tokens
            gain = min(accepted + 1, left)
            plan.drafted_tokens += rows - 1
            plan.accepted_tokens += accepted
            plan.gains.append((request, gain))
            request.produced_tokens += gain
            request.computed_tokens += gain
            last[request] = (context, rows, gain)
            if gain == left:
                request.decode_offset = None
                self._ending.setdefault(plan.index, []).append(request)
                if left > 1:
                    unsure.add(request)
        plan.num_decodes = len(plan.verified)
        self._last, self._unsure = last, unsure

    def _accepted(self, drafted: int) -> int:
        luck = self._rng.random()
        accepted = 0
        while accepted < drafted and luck < self._acceptance[accepted]:
            accepted += 1
        return accepted

    def _begin_to_decode(self, request: Request) -> None:
        request.produced_tokens += 1
        if request.produced_tokens < request.output_tokens:
            request.decode_offset = DECODES
        else:
            self._ending.setdefault(self.steps, []).append(request)

    def _leave(self, request: Request, step: int) -> Stall | None:
        request.decode_offset = None
        if request in self._starved:
            self._starved.remove(request)
        return None

    def _unhashed_tokens(self, request: Request, *, served: bool = False) -> int:
        """Tokens of ``request`` that the step in flight samples: nobody knows them yet."""
        return self._last[request][2] if self._in_flight and request in self._last else 0


class SpeculativeFetchingVllmV1(SpeculativeVllmV1, FetchingVllmV1):
    """The same over tiers of KV."""
