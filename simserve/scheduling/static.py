"""Static batching, as in FasterTransformer or a plain ``generate``: a batch is a rectangle, from first step to last.

Prompts are padded to the longest, and everybody decodes until the longest answer is out. A sequence that has ended
keeps its row of the batch and its memory, and is computed on as padding; its request ends with its own last token.
"""

from __future__ import annotations

from typing import ClassVar

from simserve.scheduling.plan import StepPlan
from simserve.scheduling.request import Request
from simserve.scheduling.scheduler import Options, Scheduler, SchedulerLimits


class Static(Scheduler):
    """First come first served, a batch at a time.

    ``plan.num_decodes`` counts the rows of the batch, those of ended sequences included, which ``plan.padding`` counts
    alone; each row's context is the longest prompt and a token for each step since. Every chunk is as long as the
    longest prompt. Each row holds blocks for the longest prompt with the longest answer until the batch is over.
    """

    options: ClassVar[Options] = {}
    reserves_answers = True
    whole_prompts = True

    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self._rows = self._row_tokens = self._first_decode_step = 0
        self._ended: list[Request] = []

    @property
    def admission_is_blocked(self) -> bool:
        return bool(self.running)

    def plan(self, plan: StepPlan) -> None:
        if not self.waiting or self.running:
            return
        batch = self._next_batch()
        self._rows, self._first_decode_step = len(batch), plan.index + 1
        self._row_tokens = max(request.input_tokens for request in batch)
        longest = self._row_tokens + max(request.output_tokens for request in batch)
        for request in batch:
            self.admit(plan, request, self.blocks.find(request), request.input_tokens, longest, allocate=True)
        for chunk in plan.chunks:
            plan.prefill_tokens += self._row_tokens - chunk.tokens
            chunk.tokens = self._row_tokens

    def _next_batch(self) -> list[Request]:
        """Those first in line whose rectangle fits the slots, the token budget and the memory."""
        limits = self.limits
        batch: list[Request] = []
        prompt = answer = 0
        for request in self.waiting:
            prompt, answer = max(prompt, request.input_tokens), max(answer, request.output_tokens)
            rows = len(batch) + 1
            blocks = rows * self.blocks.blocks_for(prompt + answer)
            too_wide = rows * prompt > limits.max_num_batched_tokens
            if rows > limits.max_num_seqs or too_wide or blocks > self.blocks.free_blocks:
                break
            batch.append(request)
        return batch

    def schedule(self, most_repeats: int = 1, list_decodes: bool = False) -> StepPlan:
        plan = super().schedule(most_repeats, list_decodes)
        if plan.num_decodes:  # rows whose answer is over are computed all the same
            plan.padding = self._rows - plan.num_decodes
            plan.num_decodes = self._rows
            plan.decode_context_tokens = self._rows * (self._row_tokens + plan.index - self._first_decode_step)
        return plan

    def _release(self, request: Request, *, may_return: bool = False, unhashed_tokens: int = 0) -> None:
        self._ended.append(request)
        if not self.running:
            for ended in self._ended:
                self.blocks.free(ended)
            self._ended.clear()

    def _is_quiet(self, plan: StepPlan) -> bool:
        return True  # nobody gets in before the batch is over
