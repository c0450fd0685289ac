"""How long one engine step takes: rooflines of its operators, compiled once per model, hardware and parallelism.

Each operator takes at least max(FLOPs / peak, bytes / bandwidth) (Williams et al., "Roofline", 2009); each side is
divided by the efficiency that the profile states for it. What depends on token counts alone is tabulated beforehand, so
that a step costs a few look-ups however many requests are in the batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simserve.hardware import HardwareProfile
from simserve.models import Gemm, ModelSpec, dtype_bytes_of

ALLREDUCE_LATENCY_S = 10e-6
"""Time of a small all-reduce between devices, before bytes count; assumed where no collective was measured."""

SHORT_RUN_STEPS = 24
"""Up to here a list is faster than an array."""

Floats = npt.NDArray[np.float64]


class StepWork(NamedTuple):
    """FLOPs and bytes that steps need on each device: the roofline's two sides."""

    flops: float
    bytes_moved: float


class StepTimer:
    """Step times of one replica of ``tensor_parallel_size`` devices, in seconds.

    ``max_tokens`` and ``max_seqs`` bound a step's rows and sampled tokens; asking beyond them raises ``IndexError``.
    """

    def __init__(
        self,
        model: ModelSpec,
        hardware: HardwareProfile,
        *,
        dtype: str,
        tensor_parallel_size: int,
        max_tokens: int,
        max_seqs: int,
    ) -> None:
        self._model = model
        self._hardware = hardware
        self._tp = tensor_parallel_size
        self._dtype_bytes = dtype_bytes_of(dtype)
        self._peak = hardware.peak_flops_for(dtype)
        self._bandwidth = hardware.bandwidth_bytes_per_s
        self._efficiency = hardware.default_efficiency
        rows = np.arange(max_tokens + 1, dtype=np.float64)
        seqs = np.arange(max_seqs + 1, dtype=np.float64)
        gemms = model.gemms(tensor_parallel_size)
        body = [gemm for gemm in gemms if gemm.kind != "head"]
        head = [gemm for gemm in gemms if gemm.kind == "head"]
        self._body_s: list[float] = (self._gemms_s(body, rows) + self._all_reduce_s(rows)).tolist()
        self._head_s: list[float] = self._gemms_s(head, seqs).tolist()
        self._body_work = [table.tolist() for table in self._gemms_work(body, rows)]
        self._head_work = [table.tolist() for table in self._gemms_work(head, seqs)]
        self._attention_flops_per_pair = model.num_layers * model.attention(self._tp).decode_flops(1)
        self._kv_bytes = model.kv_bytes_per_token(dtype, self._tp)
        self._decode_s_per_token = max(
            self._kv_bytes / (self._bandwidth * self._efficiency.attention_decode),
            self._attention_flops_per_pair / (self._peak * self._efficiency.attention_decode),
        )

    def step_s(
        self, decodes: int, decode_context_tokens: int, chunks: Iterable[tuple[int, int]], sampled: int
    ) -> float:
        """Seconds for a step with ``decodes`` decodes whose contexts sum to ``decode_context_tokens``.

        ``chunks`` are (tokens, context tokens) of each prefill chunk; ``sampled`` rows go through the lm_head.
        """
        tokens = decodes
        attention_s = (decode_context_tokens + decodes) * self._decode_s_per_token
        for chunk, context in chunks:
            tokens += chunk
            attention_s += self._prefill_attention_s(chunk, context)
        return self._body_s[tokens] + self._head_s[sampled] + attention_s

    def decode_steps_s(self, decodes: int, decode_context_tokens: int, steps: int) -> Floats | list[float]:
        """Seconds of each of ``steps`` successive steps of the same ``decodes``, whose contexts grow by one each."""
        if steps <= SHORT_RUN_STEPS:
            fixed_s, per_token_s = self._body_s[decodes] + self._head_s[decodes], self._decode_s_per_token
            first = decode_context_tokens + decodes
            return [fixed_s + tokens * per_token_s for tokens in range(first, first + steps * decodes, decodes)]
        contexts = np.arange(steps, dtype=np.float64)
        contexts *= decodes
        contexts += decode_context_tokens + decodes
        contexts *= self._decode_s_per_token
        contexts += self._body_s[decodes] + self._head_s[decodes]
        return contexts

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
        """FLOPs and bytes on each device of many runs together, one entry of each array per run.

        A run is ``steps`` equal steps of ``decodes`` decodes, whose contexts sum to ``context_tokens`` at first, and
        chunks with ``prefill_pairs`` (query, key) pairs in all that read ``prefill_kv_tokens`` tokens of KV.
        """
        tokens = (decodes + prefill_tokens).astype(np.int64)
        heads = sampled.astype(np.int64)
        attended = steps * (context_tokens + decodes) + decodes * steps * (steps - 1) / 2
        body_flops, body_bytes = (np.array(table)[tokens] for table in self._body_work)
        head_flops, head_bytes = (np.array(table)[heads] for table in self._head_work)
        flops = steps * (body_flops + head_flops) + (attended + prefill_pairs) * self._attention_flops_per_pair
        bytes_moved = steps * (body_bytes + head_bytes) + (attended + prefill_kv_tokens) * self._kv_bytes
        return StepWork(float(flops.sum()), float(bytes_moved.sum()))

    def _prefill_attention_s(self, chunk: int, context: int) -> float:
        flops = _attended_pairs(chunk, context) * self._attention_flops_per_pair
        compute_s = flops / (self._peak * self._efficiency.attention_prefill)
        memory_s = (chunk + context) * self._kv_bytes / (self._bandwidth * self._efficiency.attention_decode)
        return max(compute_s, memory_s)

    def _gemms_s(self, gemms: list[Gemm], rows: Floats) -> Floats:
        total = np.zeros_like(rows)
        for gemm in gemms:
            flops, bytes_moved = self._gemm_work(gemm, rows)
            compute_s = flops / (self._peak * self._efficiency.gemm_compute)
            memory_s = bytes_moved / (self._bandwidth * self._efficiency.gemm_memory)
            total += gemm.count * np.maximum(compute_s, memory_s)
        return total

    def _gemms_work(self, gemms: list[Gemm], rows: Floats) -> tuple[Floats, Floats]:
        flops, bytes_moved = np.zeros_like(rows), np.zeros_like(rows)
        for gemm in gemms:
            gemm_flops, gemm_bytes = self._gemm_work(gemm, rows)
            flops += gemm.count * gemm_flops
            bytes_moved += gemm.count * gemm_bytes
        return flops, bytes_moved

    def _gemm_work(self, gemm: Gemm, rows: Floats) -> tuple[Floats, Floats]:
        """FLOPs and bytes of one layer for each entry of ``rows``; nothing at all for no rows."""
        if gemm.kind == "expert":
            return self._expert_work(gemm, rows)
        bytes_moved = gemm.weights + rows * (gemm.n + gemm.k)
        return 2 * rows * gemm.weights, self._dtype_bytes * np.where(rows > 0, bytes_moved, 0.0)

    def _expert_work(self, gemm: Gemm, rows: Floats) -> tuple[Floats, Floats]:
        """Each token visits ``experts_per_token`` experts; the weights read are those of experts that anyone visits.

        With uniform routing a given expert is left out by all rows with probability (1 - k / E) ** rows.
        """
        moe = self._model.moe
        assert moe is not None
        visited = moe.num_experts * (1 - (1 - moe.experts_per_token / moe.num_experts) ** rows)
        routed = rows * moe.experts_per_token
        bytes_moved = visited * gemm.weights + routed * (gemm.n + gemm.k)
        return 2 * routed * gemm.weights, self._dtype_bytes * bytes_moved

    def _all_reduce_s(self, rows: Floats) -> Floats:
        """Two ring all-reduces a layer, each moving 2 (tp - 1) / tp of the activations over the link."""
        if self._tp == 1:
            return np.zeros_like(rows)
        link = self._hardware.link_between(self._tp).bandwidth_bytes_per_s
        moved = rows * self._model.hidden_size * self._dtype_bytes * 2 * (self._tp - 1) / self._tp
        return np.where(rows > 0, 2 * self._model.num_layers * (ALLREDUCE_LATENCY_S + moved / link), 0.0)


def _attended_pairs(chunk: int, context: int) -> float:
    """(query, key) pairs of a causal chunk on top of ``context`` cached tokens."""
    return chunk * context + chunk * (chunk + 1) / 2
