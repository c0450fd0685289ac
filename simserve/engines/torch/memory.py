"""How many KV pages a device has room for beside the weights, and what to say where it has not."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import torch

from simserve.config import EngineOptions
from simserve.engines.torch.attention import group_bytes
from simserve.errors import CapacityError
from simserve.latency.memory import activation_bytes
from simserve.models import ModelSpec, dtype_bytes_of

GIB = 2**30

CPU_SHARE = 0.5
"""Of the memory that is free once the weights are there; other programs live on a CPU's memory as well."""

COPIES_SHARE = 0.2
"""Of the free memory that a copy of the weights may take."""

TEMPORARY = 2
"""Eager torch keeps more temporary tensors, and wider logits, than the estimate for vLLM counts."""

BUFFER_SLACK = 1.25
"""What attention gathers pages into grows by a quarter more than it must."""


def check_weights_fit(spec: ModelSpec, dtype: str, device: torch.device) -> None:
    """Raise :class:`CapacityError` with the numbers if the weights alone are too large for ``device``."""
    needed = spec.weight_bytes_for(dtype)
    if device.type == "cpu" and spec.tie_word_embeddings:  # the head's packed copy of the embedding
        needed += spec.vocab_size * spec.embedding_size * dtype_bytes_of(dtype)
    free = free_bytes(device)
    if needed > free:
        raise CapacityError(
            f"{spec.name} needs {needed / GIB:.1f} GiB for its weights in {dtype}, and {free / GIB:.1f} GiB are free "
            f"on {device}; choose a smaller model, a 16-bit dtype or another device"
        )


def has_room_for_copies(spec: ModelSpec, dtype: str, device: torch.device) -> bool:
    """Whether a second copy of the weights, which makes some products faster, is little beside the free memory."""
    return spec.weight_bytes_for(dtype) < COPIES_SHARE * free_bytes(device)


def plan_pages(
    spec: ModelSpec, dtype: str, device: torch.device, options: EngineOptions, *, seqs: int, step_tokens: int
) -> int:
    """KV pages, page 0 included, that fit now that the weights are loaded; ``options.num_gpu_blocks`` if given.

    No more than ``seqs`` of the longest sequences could use. Raises :class:`CapacityError` with the numbers.
    """
    longest = min(spec.max_model_len, options.max_model_len or spec.max_model_len)
    page_bytes = spec.kv_bytes_per_token(dtype) * options.block_size
    gathered = max(group_bytes(device), spec.kv_bytes_per_token(dtype) // spec.num_layers * longest)
    temporary = TEMPORARY * activation_bytes(spec, 1, step_tokens, seqs) + BUFFER_SLACK * gathered
    room = _room(device, options.gpu_memory_utilization) - temporary
    useful = 1 + seqs * -(-longest // options.block_size)
    wanted = options.num_gpu_blocks or 2
    if room < wanted * page_bytes:
        raise CapacityError(
            f"{spec.name} leaves {max(room, 0) / GIB:.2f} GiB of {device} for KV, and {wanted} blocks of "
            f"{options.block_size} tokens take {wanted * page_bytes / GIB:.2f} GiB; lower --num-gpu-blocks, "
            "--max-num-batched-tokens or --max-num-seqs, or free some memory"
        )
    return options.num_gpu_blocks or min(int(room // page_bytes), useful)


def _room(device: torch.device, utilization: float | None) -> float:
    """Bytes that may be used from now on."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()  # torch keeps what an engine that ended had
        free, total = torch.cuda.mem_get_info(device)
        return free - (1 - (utilization or 0.9)) * total
    return free_bytes(device) * (utilization or CPU_SHARE)


def free_bytes(device: torch.device) -> int:
    """Memory that can be had on ``device`` now: of a CPU, what the system and the container leave."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _meminfo("MemAvailable")
    if free is None:  # not Linux
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit, used = _number(Path("/sys/fs/cgroup/memory.max")), _number(Path("/sys/fs/cgroup/memory.current"))
    return free if limit is None or used is None else min(free, limit - used)


def _meminfo(key: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no container, or "max"
        return None
