"""vLLM up to 0.6, its first engine (``vllm/core/scheduler.py``, ``_schedule_default``): prompts first, and whole.

A step is either prompts alone or decodes alone, so that every decode waits whenever somebody new gets in.
"""

from __future__ import annotations

from typing import ClassVar

from simserve.scheduling.plan import StepPlan
from simserve.scheduling.scheduler import Options, Scheduler


class VllmV0(Scheduler):
    """First come first served; blocks that are short are taken from the newest running request.

    A prompt must leave ``watermark`` of the blocks free, unless nothing runs. vLLM also wants a free block for a decode
    whose last block has room yet, which is left out here: at the very end of memory, it preempts a little sooner.
    """

    options: ClassVar[Options] = {"enable_prefix_caching": False, "watermark": 0.01}
    alternates = True
    whole_prompts = True

    def plan(self, plan: StepPlan) -> None:
        if self.waiting:
            self._plan_prompts(plan)
        if plan.chunks:
            plan.decodes_wait = True
        else:
            self.grow_decodes(plan)

    def _plan_prompts(self, plan: StepPlan) -> None:
        budget = self.limits.max_num_batched_tokens
        while self.waiting and not self.admission_is_blocked:
            request = self.waiting.peek()
            hit = self.blocks.find(request)
            tokens = request.known_tokens - hit.blocks * self.limits.block_size
            if tokens > budget or not self.admit(plan, request, hit, tokens, request.known_tokens):
                return
            budget -= tokens
