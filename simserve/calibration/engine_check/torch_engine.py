"""The torch engine, one step at a time, with a look at who is in each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from simserve.calibration.engine_check.ledger import Composition
from simserve.errors import CapacityError
from simserve.scheduling import Request, Scheduler, StepPlan
from simserve.workload import Workload, load_tokenizer

if TYPE_CHECKING:
    from simserve.engines.torch.runner import ModelRunner
    from simserve.engines.torch.sampler import Sample

Run = Callable[[StepPlan], "list[Sample]"]
"""Computes a plan and gives its tokens."""


class TorchEngine:
    """``runner`` behind ``scheduler``; see :class:`simserve.calibration.engine_check.drive.Engine`.

    ``run`` computes the plans in place of the runner, as when only what is around it is of interest.
    """

    def __init__(self, runner: ModelRunner, scheduler: Scheduler, run: Run | None = None) -> None:
        from simserve.engines.torch.core import EngineCore

        self._watched = _Watched(runner, run or runner.run)
        tokenizer = load_tokenizer(runner.model.spec.path)
        self._core = EngineCore(cast("ModelRunner", self._watched), scheduler, tokenizer)

    @property
    def has_work(self) -> bool:
        return bool(self._core.has_work)

    def add(self, request: Request) -> None:
        """Queue one of :func:`sequences_of`."""
        self._core.add(cast(Any, request))

    def step(self) -> tuple[Composition | None, Sequence[Hashable]]:
        """See :class:`simserve.calibration.engine_check.drive.Engine`; raises :class:`CapacityError` if it fails."""
        self._watched.composition = None
        outputs = self._core.step()
        failed = next((output.error for output in outputs if output.error), None)
        if failed:
            raise CapacityError(failed)
        finished = [_row(output.sequence.request_id) for output in outputs if output.finish_reason]
        return self._watched.composition, finished


class _Watched:
    """A model runner that remembers who was in its last step."""

    def __init__(self, runner: ModelRunner, run: Run) -> None:
        self.model, self._run = runner.model, run
        self.composition: Composition | None = None

    def run(self, plan: StepPlan) -> list[Sample]:
        self.composition = Composition.of(plan, _row)
        return self._run(plan)


def _row(request_id: Hashable) -> int:
    return int(str(request_id))


def sequences_of(workload: Workload, vocab_size: int) -> list[Request]:
    """The requests of ``workload`` with random prompts, answered to their full length, greedily.

    Their ids are the workload's rows, as words.
    """
    from simserve.engines.base import SamplingParams
    from simserve.engines.torch.sequence import Sequence as TorchSequence

    random = np.random.default_rng(0)
    greedy = SamplingParams(temperature=0.0, ignore_eos=True)
    sequences: list[Request] = []
    for row in range(len(workload)):
        prompt = random.integers(0, vocab_size, int(workload.input_tokens[row])).tolist()
        sequence = TorchSequence(str(row), prompt, int(workload.output_tokens[row]), greedy)
        sequence.arrival_s = float(workload.arrival_s[row])
        sequences.append(sequence)
    return sequences
