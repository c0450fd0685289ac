"""Orca (Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", OSDI 2022).

Iteration-level scheduling: requests join and leave the batch at every step, whole prompts next to decodes. Memory for
the longest possible answer is reserved at admission, so that nobody is ever preempted.
"""

from __future__ import annotations

from typing import ClassVar

from simserve.scheduling.plan import StepPlan
from simserve.scheduling.scheduler import Options, Scheduler


class Orca(Scheduler):
    """First come first served. The length of the answer stands for ``max_tokens``, which Orca reserves for."""

    options: ClassVar[Options] = {}
    reserves_answers = True
    whole_prompts = True

    def plan(self, plan: StepPlan) -> None:
        budget = self.limits.max_num_batched_tokens - self._decoding.count
        while self.waiting and not self.admission_is_blocked:
            request = self.waiting.peek()
            tokens = request.input_tokens
            longest = tokens + request.output_tokens
            if tokens > budget:
                return
            if not self.admit(plan, request, self.blocks.find(request), tokens, longest, allocate=True):
                return
            budget -= tokens
