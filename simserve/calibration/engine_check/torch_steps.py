"""The torch engine's side of a step: pages for everybody in the plan, the model, and the tokens that came out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from simserve.scheduling import NumberedKVCache, Scheduler, StepPlan
from simserve.workload import Workload

if TYPE_CHECKING:
    from simserve.engines.torch.sampler import Sample
    from simserve.engines.torch.sequence import Sequence as TorchSequence

Run = Callable[[StepPlan], "list[Sample]"]
"""Computes a plan and gives its tokens, as a ``ModelRunner`` does."""


class TorchSteps:
    """Runs the plans of ``scheduler``, whose blocks it numbers, by ``run``."""

    def __init__(self, scheduler: Scheduler, run: Run) -> None:
        self._blocks: NumberedKVCache = scheduler.number_blocks()
        self._run = run

    def execute(self, plan: StepPlan) -> None:
        """Compute ``plan``, which lists its decodes, and add its tokens to the sequences."""
        for request in plan.decodes:
            request.pages = self._blocks.table(request, len(request.token_ids))  # type: ignore[attr-defined]
        for chunk in plan.chunks:
            chunk.request.pages = self._blocks.table(chunk.request, chunk.context_tokens + chunk.tokens)  # type: ignore[attr-defined]
        for request, sample in zip(plan.sampled, self._run(plan), strict=True):
            request.token_ids.append(sample.token_id)  # type: ignore[attr-defined]
