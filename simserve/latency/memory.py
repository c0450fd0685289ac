"""How many KV blocks fit beside the weights: what decides tail latency on small cards."""

from __future__ import annotations

from dataclasses import dataclass

from simserve.errors import CapacityError
from simserve.hardware import HardwareProfile
from simserve.models import ModelSpec, Quantization

MIB, GIB = 2**20, 2**30

REPORTED_SHARE = 0.987
"""Of a device's nominal memory, what its driver reports as there: 98-99 % on cards whose profile does not say."""

RUNTIME_BYTES = 72 * MIB
"""Memory outside the framework's allocator that loading kernels takes; vLLM reports 0.07 GiB."""

COLLECTIVE_BYTES = {2: 342 * MIB, 4: 392 * MIB}
"""Buffers of the collective library by devices, and so from there on; as ai-dynamo/aiconfigurator counts them."""

SAMPLER_BYTES = 2 + 4 + 12 + 16 + 4
"""Of each logit when vLLM profiles its sampler: as computed and in float32, sorted with int64 indices, and what the
sort works on (two arrays of index pairs, one of keys). vLLM's log of a Gemma 4B start gives 39.8."""


GRAPH_BYTES = 8 * MIB
"""Of a captured graph, as vLLM estimates it when it starts.

Ten published logs of 0.19 to 0.27 with default sizes (86 or 102 graphs, one device) print 0.08-1.58 GiB in all, 0.75 in
the middle; the graphs then take half of that to all of it.
"""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on each device of a replica, and the KV blocks (of the whole replica) that come of them.

    ``runtime_bytes`` are what loaded kernels, collective buffers and, if the engine counts them, graphs take.
    """

    usable_bytes: int
    weight_bytes: int
    activation_bytes: int
    runtime_bytes: int
    block_bytes: int
    num_blocks: int


def plan_memory(
    model: ModelSpec,
    hardware: HardwareProfile,
    *,
    dtype: str,
    tensor_parallel_size: int,
    gpu_memory_utilization: float,
    block_size: int,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    quantization: Quantization | None = None,
    kv_dtype: str | None = None,
    graph_bytes: int = 0,
    devices: int | None = None,
) -> MemoryPlan:
    """Split a device's memory as vLLM does at start: (memory x utilisation - weights - activations - runtime) / block.

    ``graph_bytes`` is what captured graphs take, which vLLM counts from 0.21 on; before, they take of what
    ``gpu_memory_utilization`` leaves free. ``devices`` work together in all, where these are more than the
    tensor-parallel ones. Raises :class:`CapacityError` with the numbers if not even a few blocks are
    left.
    """
    usable = int(reported_memory_bytes(hardware) * gpu_memory_utilization)
    weights = model.weight_bytes_for(dtype, tensor_parallel_size, quantization)
    activations = activation_bytes(model, tensor_parallel_size, max_num_batched_tokens, max_num_seqs)
    runtime = RUNTIME_BYTES + graph_bytes + _collective_bytes(devices or tensor_parallel_size)
    block = model.kv_bytes_per_token(kv_dtype or dtype, tensor_parallel_size) * block_size
    blocks = blocks_of(model, hardware, tensor_parallel_size, usable, weights + activations + runtime, block)
    return MemoryPlan(usable, weights, activations, runtime, block, blocks)


def blocks_of(
    model: ModelSpec, hardware: HardwareProfile, devices: int, usable_bytes: int, taken_bytes: int, block_bytes: int
) -> int:
    """KV blocks in what is left; raises :class:`CapacityError` with the numbers if not even a few are."""
    blocks = (usable_bytes - taken_bytes) // block_bytes
    if blocks < 2:
        raise CapacityError(
            f"{model.name} does not fit on {devices} x {hardware.name}: it needs {taken_bytes / GIB:.1f} GiB on each "
            f"device before any KV cache, and {usable_bytes / GIB:.1f} GiB are usable; raise --tensor-parallel-size, "
            "choose hardware with more memory or --quantization"
        )
    return blocks


def reported_memory_bytes(hardware: HardwareProfile) -> int:
    """Memory that the device's driver reports in all, which is less than nominal."""
    return hardware.reported_memory_bytes or int(hardware.memory_bytes * REPORTED_SHARE)


def activation_bytes(
    model: ModelSpec, tensor_parallel_size: int, max_num_batched_tokens: int, max_num_seqs: int
) -> int:
    """Peak of temporary tensors in vLLM's profiling run: the widest layer at the full token budget, or the sampler.

    A layer holds the residual, its input and the MLP's two halves in 2 bytes each; the sampler holds the logits of
    ``max_num_seqs`` sequences several times over while the last layer's output is still there.
    """
    width = model.moe.expert_intermediate_size * model.moe.experts_per_token if model.moe else model.intermediate_size
    widest = 2 * max(width, model.intermediate_size) // tensor_parallel_size + 3 * model.hidden_size
    layer = 2 * max_num_batched_tokens * widest
    sampler = SAMPLER_BYTES * max_num_seqs * model.vocab_size + 2 * max_num_batched_tokens * model.hidden_size
    return max(layer, sampler)


def _collective_bytes(devices: int) -> int:
    return max((size for count, size in COLLECTIVE_BYTES.items() if count <= devices), default=0)
