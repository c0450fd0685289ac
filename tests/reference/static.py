"""Static batching, the obvious way: a rectangle of rows that stand until the last of them has ended."""

from __future__ import annotations

from reference.plan import PrefillChunk, StepPlan
from reference.request import Request
from reference.scheduler import Scheduler
from simserve.scheduling import SchedulerLimits


class Static(Scheduler):
    whole_prompts = True

    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self.batch: list[Request] = []
        self.row_tokens = 0

    def plan(self, plan: StepPlan) -> None:
        if self.running:
            self._decode_rows(plan)
            return
        while self.waiting and self._fits([*self.batch, self.waiting[0]]):
            self.batch.append(self.waiting.popleft())
        width = self.row_tokens = max((request.input_tokens for request in self.batch), default=0)
        longest = width + max((request.output_tokens for request in self.batch), default=0)
        for request in self.batch:
            assert self.blocks.admit(request, [], longest, longest)
            self._start(request, 0)
            self._take_into(plan, request, request.input_tokens)
        plan.chunks = [PrefillChunk(chunk.request, width, 0, chunk.samples) for chunk in plan.chunks]

    def _decode_rows(self, plan: StepPlan) -> None:
        for request in self.running:
            if self._is_decoding(request):
                self._take_into(plan, request, 1)
        if plan.decodes:
            plan.padding = len(self.batch) - len(plan.decodes)
            plan.decode_context_tokens = len(self.batch) * self.row_tokens
            self.row_tokens += 1

    def _fits(self, batch: list[Request]) -> bool:
        prompt = max(request.input_tokens for request in batch)
        blocks_of_a_row = -(-(prompt + max(request.output_tokens for request in batch)) // self.limits.block_size)
        return (
            len(batch) <= self.limits.max_num_seqs
            and len(batch) * prompt <= self.limits.max_num_batched_tokens
            and len(batch) * blocks_of_a_row <= self.blocks.usable_blocks
        )

    def _release(self, request: Request) -> None:
        self.prefilling.discard(request)
        if not self.running:
            for member in self.batch:
                self.blocks.free(member)
            self.batch = []
