"""How long a step takes in each stage of a pipeline, and on the way from one to the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simserve.hardware import HardwareProfile
from simserve.latency.communication import all_reduce_s
from simserve.latency.host import HostCosts
from simserve.latency.lines import Floats
from simserve.latency.links import send_s
from simserve.latency.step_timer import StepTimer, StepWork
from simserve.models import ModelSpec, dtype_bytes_of

SENT_TENSORS = 2
"""vLLM's stages pass on the hidden states and the residual beside them."""


class PipelineTimer(StepTimer):
    """Of a replica whose model is split over ``stages``, each with the timer of its own layers, without host time.

    ``sends_s`` are the seconds from stage to stage by rows. Stages with the same timer are asked once. Each later stage
    is given its own embedding and norm, which stand for taking over what the stage before has sent.
    """

    def __init__(self, stages: Sequence[StepTimer], sends_s: Sequence[float], host: HostCosts) -> None:
        # It is a step timer to all who ask one, but has no tables of its own: super().__init__ would compile them.
        self._stages = list(stages)
        self._sends_s = list(sends_s)
        self._host = host

    @property
    def stages(self) -> int:
        return len(self._stages)

    def stations_s(
        self, decodes: int, decode_context_tokens: int, chunks: Sequence[tuple[int, int]], sampled: int
    ) -> list[float]:
        """Seconds in the host and each stage, with the link before each stage but the first in between.

        Arguments as of :meth:`StepTimer.step_s`. Only the last stage samples.
        """
        tokens = decodes + sum(tokens for tokens, _ in chunks)
        send_s = self._sends_s[tokens]
        seconds = [self._host.step_s + self._host.request_s * (decodes + len(chunks))]
        known: dict[int, float] = {}
        for timer in self._stages[:-1]:
            each_s = known.get(id(timer))
            if each_s is None:
                each_s = known[id(timer)] = timer.step_s(decodes, decode_context_tokens, chunks, 0)
            seconds += (each_s, send_s)
        seconds.append(self._stages[-1].step_s(decodes, decode_context_tokens, chunks, sampled))
        return seconds

    def step_s(
        self, decodes: int, decode_context_tokens: int, chunks: Sequence[tuple[int, int]], sampled: int
    ) -> float:
        """Seconds of a step that has the pipeline to itself, from planning to the last stage's end."""
        return sum(self.stations_s(decodes, decode_context_tokens, chunks, sampled))

    def decode_steps_s(self, decodes: int, decode_context_tokens: int, steps: int) -> Floats | list[float]:
        """See :meth:`StepTimer.decode_steps_s`; each step has the pipeline to itself."""
        return [self.step_s(decodes, decode_context_tokens + index * decodes, (), decodes) for index in range(steps)]

    def total_work(
        self,
        steps: Floats,
        decodes: Floats,
        context_tokens: Floats,
        prefill_tokens: Floats,
        prefill_pairs: Floats,
        prefill_kv_tokens: Floats,
        sampled: Floats,
    ) -> StepWork:
        """See :meth:`StepTimer.total_work`; on each device on average over the stages."""
        columns = (steps, decodes, context_tokens, prefill_tokens, prefill_pairs, prefill_kv_tokens)
        works = [timer.total_work(*columns, np.zeros_like(sampled)) for timer in self._stages[:-1]]
        works.append(self._stages[-1].total_work(*columns, sampled))
        flops, moved = (sum(each) / self.stages for each in zip(*works, strict=True))
        return StepWork(flops, moved)


def stage_sends_s(
    model: ModelSpec,
    hardware: HardwareProfile,
    *,
    dtype: str,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    max_tokens: int,
) -> Floats:
    """Seconds from one stage to the next for batches of 0 .. ``max_tokens`` rows.

    Each device sends its share to the same device of the next stage, where the shares are put together again: the half
    of an all-reduce that only gathers.
    """
    message_bytes = np.arange(max_tokens + 1.0) * SENT_TENSORS * model.hidden_size * dtype_bytes_of(dtype)
    devices = tensor_parallel_size * pipeline_parallel_size
    seconds = send_s(hardware, devices, message_bytes / tensor_parallel_size)
    seconds += all_reduce_s(hardware, tensor_parallel_size, message_bytes) / 2
    return seconds
