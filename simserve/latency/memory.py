"""How many KV blocks fit beside the weights: what decides tail latency on small cards."""

from __future__ import annotations

from dataclasses import dataclass

from simserve.errors import CapacityError
from simserve.hardware import HardwareProfile
from simserve.models import ModelSpec

RUNTIME_BYTES = 350 * 2**20
"""Device memory that an engine's runtime, libraries and workspaces hold on each device."""

GIB = 2**30


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on each device of a replica, and the KV blocks (of the whole replica) that come of them."""

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
) -> MemoryPlan:
    """Split a device's memory as vLLM does at start: (memory x utilisation - weights - activations - runtime) / block.

    Raises :class:`CapacityError` with the numbers if not even a few blocks are left.
    """
    usable = int(hardware.memory_bytes * gpu_memory_utilization)
    weights = model.weight_bytes_for(dtype, tensor_parallel_size)
    activations = activation_bytes(model, tensor_parallel_size, max_num_batched_tokens, max_num_seqs)
    block = model.kv_bytes_per_token(dtype, tensor_parallel_size) * block_size
    blocks = (usable - weights - activations - RUNTIME_BYTES) // block
    if blocks < 2:
        raise CapacityError(
            f"{model.name} does not fit on {tensor_parallel_size} x {hardware.name}: it needs "
            f"{(weights + activations + RUNTIME_BYTES) / GIB:.1f} GiB on each device before any KV cache, and "
            f"{usable / GIB:.1f} GiB are usable; raise --tensor-parallel-size or choose hardware with more memory"
        )
    return MemoryPlan(usable, weights, activations, RUNTIME_BYTES, block, blocks)


def activation_bytes(
    model: ModelSpec, tensor_parallel_size: int, max_num_batched_tokens: int, max_num_seqs: int
) -> int:
    """Peak of temporary tensors in vLLM's profiling run: the widest layer at the full token budget, or the sampler.

    A layer holds the residual, its input and the MLP's two halves in 2 bytes each; the sampler holds logits of
    ``max_num_seqs`` sequences in 4 bytes three times over (logits, softmax, scratch).
    """
    widest = 2 * model.intermediate_size // tensor_parallel_size + 3 * model.hidden_size
    layer = 2 * max_num_batched_tokens * widest
    sampler = 3 * 4 * max_num_seqs * model.vocab_size
    return max(layer, sampler)
