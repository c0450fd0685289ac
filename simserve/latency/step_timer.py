"""How long one engine step takes: calibrated rooflines, compiled once per model, hardware and parallelism.

Each operator takes at least max(FLOPs / peak, bytes / bandwidth) (Williams et al., "Roofline", 2009), divided by the
efficiency measured for it, or assumed where it never was. What depends on token counts alone is tabulated beforehand,
so that a step costs a few look-ups however many requests are in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from simserve.hardware import HardwareProfile
from simserve.latency.attention_shape import AttentionShape
from simserve.latency.communication import all_reduce_s
from simserve.latency.decode_attention import DecodeAttention
from simserve.latency.elementwise import Elementwise
from simserve.latency.host import (
    KERNELS_PER_LAYER,
    VLLM_V1,
    HostCosts,
    graph_sizes,
    launch_s_of,
    padded_tokens,
)
from simserve.latency.layers import Layers
from simserve.latency.lines import Floats
from simserve.latency.mixed_attention import MixedDecodeAttention
from simserve.latency.number_formats import WeightFormat, plain_format
from simserve.latency.prefill_attention import PrefillAttention
from simserve.models import ModelSpec, dtype_bytes_of

SHORT_RUN_STEPS = 24
"""Up to here a list is faster than an array."""

USUAL_COMPUTE_UNITS = 100
"""Where a profile does not say how many there are."""


class StepWork(NamedTuple):
    """FLOPs and bytes that steps need on each device: the roofline's two sides."""

    flops: float
    bytes_moved: float


class StepTimer:
    """Step times of one replica of ``tensor_parallel_size`` devices, in seconds.

    ``dtype`` is that of activations, and of weights and KV cache unless ``weights`` and ``kv_dtype`` say otherwise.
    ``max_tokens`` and ``max_seqs`` bound a step's rows and sampled tokens; asking beyond them raises
    ``IndexError``. ``graphs`` tells whether the engine captures graphs, and so pads batches to their sizes.
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
        weights: WeightFormat | None = None,
        kv_dtype: str | None = None,
        host: HostCosts = VLLM_V1,
        graphs: bool = True,
    ) -> None:
        self._layers_count = model.num_layers
        self._host = host
        layers = Layers(model, hardware, dtype, weights or plain_format(dtype), tensor_parallel_size)
        elementwise = Elementwise(model, hardware, tensor_parallel_size)
        sizes = graph_sizes(max_seqs, max_tokens) if graphs else []
        tokens = np.arange(max_tokens + 1, dtype=np.float64)
        seqs = np.arange(max_seqs + 1, dtype=np.float64)
        message_bytes = tokens * model.hidden_size * dtype_bytes_of(dtype)
        body = layers.body_s(tokens) + elementwise.body_s(tokens)
        body += (
            2 * model.num_layers * np.where(tokens > 0, all_reduce_s(hardware, tensor_parallel_size, message_bytes), 0)
        )
        body = body[padded_tokens(max_tokens, sizes)]
        eager = tokens > (sizes[-1] if sizes else 0)
        launch_s = launch_s_of(hardware, host)
        body = np.where(eager, np.maximum(body, model.num_layers * KERNELS_PER_LAYER * launch_s), body)
        self._body_s: list[float] = body.tolist()
        self._head_s: list[float] = (layers.head_s(seqs) + elementwise.sampler_s(seqs)).tolist()
        self._body_work = [table.tolist() for table in layers.body_work(tokens)]
        self._head_work = [table.tolist() for table in layers.head_work(seqs)]
        self._kv_bytes = (
            model.num_layers * 2 * layers.attention.num_kv_heads * model.head_dim * dtype_bytes_of(kv_dtype or dtype)
        )
        self._flops_per_pair = model.num_layers * layers.attention.decode_flops(1)
        shape = AttentionShape(
            layers.attention,
            dtype_bytes_of(kv_dtype or dtype),
            hardware.peak_flops_for(dtype),
            hardware.bandwidth_bytes_per_s,
            hardware.compute_units or USUAL_COMPUTE_UNITS,
        )
        self._decode = DecodeAttention(shape, hardware)
        self._prefill = PrefillAttention(shape, hardware, max_tokens)
        self._mixed = MixedDecodeAttention(self._decode, self._prefill, shape, hardware)

    def step_s(
        self, decodes: int, decode_context_tokens: int, chunks: Sequence[tuple[int, int]], sampled: int
    ) -> float:
        """Seconds for a step with ``decodes`` decodes whose contexts sum to ``decode_context_tokens``.

        ``chunks`` are (tokens, context tokens) of each prefill chunk; ``sampled`` rows go through the lm_head.
        """
        attended = decode_context_tokens + decodes
        if not chunks:
            by_count = self._decode.lines
            lines = by_count.known.get(decodes) or by_count.of(decodes)
            device_s = self._body_s[decodes] + self._head_s[sampled] + self._layers_count * lines.at(attended)
            return self._host.seconds(device_s, decodes)
        prefill = self._prefill
        launch_s = prefill.launch_s
        tokens, longest = decodes, 0
        attention_s = launch_s  # one kernel computes all chunks, so that its launch counts once
        for chunk, context in chunks:
            tokens += chunk
            if chunk > longest:
                longest = chunk
            lines = prefill.lines.known.get(chunk) or prefill.lines.of(chunk)
            attention_s += lines.at(context) - launch_s
        if decodes:
            idle_tiles = -(-longest // prefill.tile_rows) - 1
            by_count = self._mixed.lines
            lines = by_count.known.get(decodes) or by_count.of(decodes)
            attention_s += lines.at(attended) + decodes * idle_tiles * self._mixed.idle_s
        device_s = self._body_s[tokens] + self._head_s[sampled] + self._layers_count * attention_s
        return self._host.seconds(device_s, decodes + len(chunks))

    def decode_steps_s(self, decodes: int, decode_context_tokens: int, steps: int) -> Floats | list[float]:
        """Seconds of each of ``steps`` successive steps of the same ``decodes``, whose contexts grow by one each."""
        if steps <= SHORT_RUN_STEPS:
            fixed_s, layers = self._body_s[decodes] + self._head_s[decodes], self._layers_count
            attention_s = self._decode.lines.of(decodes).at_steps(decode_context_tokens + decodes, decodes, steps)
            return self._host.few_seconds([fixed_s + layers * each_s for each_s in attention_s], decodes)
        contexts = np.arange(steps, dtype=np.float64)
        contexts *= decodes
        contexts += decode_context_tokens + decodes
        seconds = self._decode.lines.of(decodes).at_all(contexts)
        seconds *= self._layers_count
        seconds += self._body_s[decodes] + self._head_s[decodes]
        return self._host.all_seconds(seconds, decodes)

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
        flops = steps * (body_flops + head_flops) + (attended + prefill_pairs) * self._flops_per_pair
        bytes_moved = steps * (body_bytes + head_bytes) + (attended + prefill_kv_tokens) * self._kv_bytes
        return StepWork(float(flops.sum()), float(bytes_moved.sum()))


def compiled_step_timer(model: ModelSpec, hardware: HardwareProfile, **options: Any) -> StepTimer:
    """The :class:`StepTimer` of these arguments, the same one if it was made before: simulations can share it."""
    return _compiled(model, _Same(hardware), **options)


class _Same:
    """A profile as a key: equal to itself alone, because its curves are not hashable."""

    def __init__(self, profile: HardwareProfile) -> None:
        self.profile = profile

    def __hash__(self) -> int:
        return id(self.profile)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.profile is self.profile


@lru_cache(maxsize=32)
def _compiled(model: ModelSpec, hardware: _Same, **options: Any) -> StepTimer:
    return StepTimer(model, hardware.profile, **options)
