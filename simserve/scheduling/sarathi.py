"""Sarathi-Serve (Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference", OSDI 2024): stall-free batches.

Each step has a fixed token budget. Decodes come first and never wait for a prompt; what they leave is filled with the
prompt in progress, then with new ones, the last of which is cut to fit.
"""

from __future__ import annotations

from typing import ClassVar

from simserve.scheduling.plan import StepPlan
from simserve.scheduling.scheduler import Options, Scheduler


class Sarathi(Scheduler):
    """First come first served; blocks that are short are taken from the newest running request.

    A prompt gets all its blocks when it starts, and must leave ``watermark`` of them free unless nothing runs.
    """

    options: ClassVar[Options] = {"chunked_prefill_size": 512, "max_num_seqs": 128, "watermark": 0.01}
    fixed: ClassVar[Options] = {"enable_chunked_prefill": True}

    def plan(self, plan: StepPlan) -> None:
        if self._decoding.count:
            self.grow_decodes(plan)
        budget = self.limits.max_num_batched_tokens - self._decoding.count
        for request in list(self._prefilling):
            tokens = min(request.known_tokens - request.computed_tokens, budget)
            if tokens > 0:
                self.compute(plan, request, tokens)
                budget -= tokens
        if self.waiting and not plan.preempted:
            self._plan_waiting(plan, budget)

    def _plan_waiting(self, plan: StepPlan, budget: int) -> None:
        while self.waiting and budget > 0 and not self.admission_is_blocked:
            request = self.waiting.peek()
            known = request.known_tokens
            tokens = min(known, budget)
            if not self.admit(plan, request, self.blocks.find(request), tokens, known, allocate=True):
                return
            budget -= tokens
