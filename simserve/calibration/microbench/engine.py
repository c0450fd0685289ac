"""The real engine as the microbenchmark drives it: whole steps made by hand, on random weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from simserve.calibration.microbench.machine import Machine
from simserve.calibration.microbench.stopwatch import Call
from simserve.calibration.microbench.whole_steps import Step
from simserve.models import ModelSpec
from simserve.scheduling import SchedulerLimits, VllmV1
from simserve.workload import Workload

PAGE_TOKENS = 16
SPREAD = 0.5
"""Contexts of a batch go from so much below their mean to so much above it, as in a server where requests come and go:
a batch of equal ones takes up to a tenth less, or more where all of it is computed in one piece too large for a cache.
"""

MOST_HOST_STEPS = 50_000
"""More than the host's part of a step is called for."""


class EngineUnderTest:
    """A model in the torch engine, with KV pages for the largest of ``steps``; see ``StepRunner``."""

    def __init__(self, model: ModelSpec, machine: Machine, steps: Sequence[Step]) -> None:
        from simserve.engines.torch.batch import ROW_BLOCK
        from simserve.engines.torch.runner import load_runner

        self.row_block = ROW_BLOCK
        self.runner = load_runner(
            model,
            num_pages=1 + max(map(_pages, steps)),
            page_tokens=PAGE_TOKENS,
            device=str(machine.device),
            dtype=machine.dtype_name,
            random_weights=True,
        )

    def prepare(self, step: Step) -> Call:
        """See ``StepRunner``: the runner returns once the tokens are there, on a GPU too."""
        from simserve.engines.torch.runner import hand_made_plan

        return partial(self.runner.run, hand_made_plan(self.runner, contexts_of(step), step.prompts))

    def host_step(self, decodes: int) -> Call:
        """A call that makes the engine's next step of so many decodes, without its model."""
        from simserve.calibration.engine_check.torch_engine import TorchEngine, sequences_of
        from simserve.engines.torch.sampler import Sample

        token = Sample(0)
        limits = SchedulerLimits(
            num_blocks=2 + decodes * (2 + MOST_HOST_STEPS // PAGE_TOKENS), max_num_seqs=decodes, prefix_caching=False
        )
        engine = TorchEngine(self.runner, VllmV1(limits), lambda plan: [token] * plan.num_sampled)
        one = np.ones(decodes, dtype=np.int64)
        workload = Workload("host", np.zeros(decodes), one, one * MOST_HOST_STEPS)
        for sequence in sequences_of(workload, self.runner.model.spec.vocab_size):
            engine.add(sequence)
        engine.step()
        return engine.step


def contexts_of(step: Step) -> list[int]:
    """Tokens in the cache of each decode of ``step``: see :func:`spread`."""
    return spread(step.decodes, step.context)


def spread(decodes: int, context: int) -> list[int]:
    """Tokens in the cache of each of ``decodes``: spread around ``context``, which is exactly their mean."""
    edges = np.linspace(1 - SPREAD, 1 + SPREAD, decodes + 1)
    # The sum up to each sequence is rounded, so that roundings do not add up.
    sums = np.rint(np.cumsum((edges[1:] + edges[:-1]) / 2) * context).astype(int).tolist()
    return [high - low for low, high in pairwise([0, *sums])]


def _pages(step: Step) -> int:
    lengths = [context + 1 for context in contexts_of(step)] + [tokens + cached for tokens, cached in step.prompts]
    return sum(-(-length // PAGE_TOKENS) for length in lengths)
