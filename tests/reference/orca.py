"""Orca, the obvious way: everybody gets a token, and whole prompts get in with room for their whole answers."""

from __future__ import annotations

from reference.plan import StepPlan
from reference.scheduler import Scheduler


class Orca(Scheduler):
    whole_prompts = True

    def plan(self, plan: StepPlan) -> None:
        self._decode_all(plan)
        budget = self.limits.max_num_batched_tokens - len(plan.decodes)
        while self.waiting and len(self.running) < self.limits.max_num_seqs:
            request = self.waiting[0]
            longest = request.input_tokens + request.output_tokens
            if request.input_tokens > budget or not self.blocks.admit(request, [], longest, longest):
                break
            self._start(self.waiting.popleft(), 0)
            self._take_into(plan, request, request.input_tokens)
            budget -= request.input_tokens
