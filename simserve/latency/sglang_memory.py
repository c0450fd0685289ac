"""How SGLang splits a device's memory: a share for weights and KV cache, the rest for activations and graphs.

From ``_handle_gpu_memory_settings`` of SGLang 0.5's ``server_args.py``, which goes by the device's memory alone.
"""

from __future__ import annotations

from simserve.hardware import HardwareProfile
from simserve.latency.memory import GIB, MIB, MemoryPlan, blocks_of, reported_memory_bytes
from simserve.models import ModelSpec, Quantization

BY_MEMORY = (
    (20 * GIB, 2048, 8, 8),
    (35 * GIB, 2048, 24, 80),
    (60 * GIB, 4096, 32, 160),
    (160 * GIB, 8192, 256, 512),
    (float("inf"), 16384, 512, 512),
)
"""With less memory than this: tokens of a prefill chunk, most sequences of a graph below 4 devices, and from 4 on."""

CONTEXT_BYTES = 512 * MIB
"""Of a process on the device before it loads weights: start-up logs show 0.4-1 GiB less than the whole as available."""

METADATA_MIB, CHUNK_TOKEN_MIB, GRAPH_SEQUENCE_MIB, DEVICE_MIB = 512, 1.5, 2, 128
"""What is set aside: for all, per token of a chunk (2048 at least), per sequence of the largest graph, per device."""

LARGE_BYTES, LEAST_RESERVED_LARGE_MIB = 60 * GIB, 10240
"""Devices with more memory than this set at least so much aside."""


def default_chunk_tokens(hardware: HardwareProfile) -> int:
    """Most tokens of prompts in one step, where the user says nothing."""
    return _row(hardware)[1]


def default_share(hardware: HardwareProfile, chunk_tokens: int, tensor_parallel_size: int) -> float:
    """``--mem-fraction-static`` where the user says nothing."""
    _, _, graphs_few, graphs_many = _row(hardware)
    total_mib = reported_memory_bytes(hardware) / MIB
    reserved_mib = METADATA_MIB + CHUNK_TOKEN_MIB * max(chunk_tokens, 2048) + DEVICE_MIB * tensor_parallel_size
    reserved_mib += GRAPH_SEQUENCE_MIB * (graphs_few if tensor_parallel_size < 4 else graphs_many)
    if total_mib * MIB > LARGE_BYTES:
        reserved_mib = max(reserved_mib, LEAST_RESERVED_LARGE_MIB)
    return round(max(total_mib - reserved_mib, 0.0) / total_mib, 3)


def plan_static_memory(
    model: ModelSpec,
    hardware: HardwareProfile,
    *,
    dtype: str,
    tensor_parallel_size: int,
    share: float,
    block_size: int,
    quantization: Quantization | None = None,
    kv_dtype: str | None = None,
) -> MemoryPlan:
    """The KV cache is what ``share`` of the free memory leaves beside the weights.

    Raises :class:`simserve.errors.CapacityError` with the numbers if not even a few blocks are left.
    """
    usable = int((reported_memory_bytes(hardware) - CONTEXT_BYTES) * share)
    weights = model.weight_bytes_for(dtype, tensor_parallel_size, quantization)
    block = model.kv_bytes_per_token(kv_dtype or dtype, tensor_parallel_size) * block_size
    blocks = blocks_of(model, hardware, tensor_parallel_size, usable, weights, block)
    return MemoryPlan(usable, weights, 0, 0, block, blocks)


def _row(hardware: HardwareProfile) -> tuple[float, int, int, int]:
    total = reported_memory_bytes(hardware)
    return next(row for row in BY_MEMORY if total < row[0])
