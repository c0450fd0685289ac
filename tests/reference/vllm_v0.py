"""vLLM up to 0.6, the obvious way: a step is whole prompts alone, or else a token for everybody."""

from __future__ import annotations

from reference.plan import StepPlan
from reference.scheduler import Scheduler


class VllmV0(Scheduler):
    alternates = True
    whole_prompts = True

    def plan(self, plan: StepPlan) -> None:
        self._plan_prompts(plan)
        if not plan.chunks:
            self._decode_all(plan)

    def _plan_prompts(self, plan: StepPlan) -> None:
        budget = self.limits.max_num_batched_tokens
        while self.waiting and len(self.running) < self.limits.max_num_seqs:
            request = self.waiting[0]
            prefix = self.blocks.find_prefix(request)
            hit_tokens = sum(len(unit.blocks) for unit in prefix) * self.limits.block_size
            tokens = request.known_tokens - hit_tokens
            if tokens > budget:
                break
            if not self.blocks.admit(request, prefix, tokens, request.known_tokens, self._keep_free()):
                break
            self._start(self.waiting.popleft(), hit_tokens)
            self._take_into(plan, request, tokens)
            budget -= tokens
