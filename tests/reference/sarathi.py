"""Sarathi-Serve, the obvious way: decodes, then the prompt in progress, then new prompts, within one token budget."""

from __future__ import annotations

from reference.plan import StepPlan
from reference.scheduler import Scheduler


class Sarathi(Scheduler):
    def plan(self, plan: StepPlan) -> None:
        self._decode_all(plan)
        budget = self.limits.max_num_batched_tokens - len(plan.decodes)
        for request in list(self.running):
            tokens = min(request.known_tokens - request.computed_tokens, budget)
            if request in self.prefilling and tokens > 0:
                self._take_into(plan, request, tokens)
                budget -= tokens
        if not plan.preempted:
            self._plan_waiting(plan, budget)

    def _plan_waiting(self, plan: StepPlan, budget: int) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.limits.max_num_seqs:
            request = self.waiting[0]
            tokens = min(request.known_tokens, budget)
            if not self.blocks.admit(request, [], request.known_tokens, request.known_tokens, self._keep_free()):
                break
            self._start(self.waiting.popleft(), 0)
            self._take_into(plan, request, tokens)
            budget -= tokens
