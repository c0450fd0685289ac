"""From what a user asks for to an engine that can run: defaults resolved, memory planned, rooflines compiled."""

from __future__ import annotations

from dataclasses import dataclass

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.hardware import HardwareProfile
from simserve.latency import StepTimer, plan_memory
from simserve.models import ModelSpec
from simserve.scheduling import POLICIES, Scheduler, SchedulerLimits

BIG_MEMORY_BYTES = 70 * 2**30
"""From this much memory on (and not on an A100) vLLM's API server takes its larger defaults."""


@dataclass(frozen=True)
class EngineSetup:
    """One replica, ready to be built: everything in it is resolved and checked."""

    model: ModelSpec
    hardware: HardwareProfile
    options: EngineOptions
    dtype: str
    limits: SchedulerLimits
    block_bytes: int
    timer: StepTimer

    def new_scheduler(self) -> Scheduler:
        return POLICIES[self.options.policy](self.limits)


def prepare(model: ModelSpec, hardware: HardwareProfile, options: EngineOptions) -> EngineSetup:
    """Resolve ``options`` for ``model`` on ``hardware``.

    Raises :class:`ConfigError` for options that contradict each other, :class:`CapacityError` if weights do not fit.
    """
    if options.policy not in POLICIES:
        raise ConfigError(f"unknown policy '{options.policy}'; choose one of {', '.join(sorted(POLICIES))}")
    dtype = options.dtype or ("float16" if model.dtype == "float32" and hardware.kind == "gpu" else model.dtype)
    max_num_seqs, token_budget = _step_limits(hardware, options)
    memory = plan_memory(
        model,
        hardware,
        dtype=dtype,
        tensor_parallel_size=options.tensor_parallel_size,
        gpu_memory_utilization=options.gpu_memory_utilization,
        block_size=options.block_size,
        max_num_batched_tokens=token_budget,
        max_num_seqs=max_num_seqs,
    )
    num_blocks = options.num_gpu_blocks or memory.num_blocks
    limits = SchedulerLimits(
        num_blocks=num_blocks,
        block_size=options.block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=token_budget,
        max_model_len=_max_model_len(model, options, (num_blocks - 1) * options.block_size),
        prefix_caching=options.enable_prefix_caching,
        chunked_prefill=options.enable_chunked_prefill,
        long_prefill_token_threshold=options.long_prefill_token_threshold,
        reserve_full_prompt=options.reserve_full_prompt,
    )
    timer = StepTimer(
        model,
        hardware,
        dtype=dtype,
        tensor_parallel_size=options.tensor_parallel_size,
        max_tokens=token_budget,
        max_seqs=max_num_seqs,
    )
    return EngineSetup(model, hardware, options, dtype, limits, memory.block_bytes, timer)


def _step_limits(hardware: HardwareProfile, options: EngineOptions) -> tuple[int, int]:
    """(max_num_seqs, max_num_batched_tokens): vLLM's API-server defaults by device memory where not given."""
    large = hardware.memory_bytes >= BIG_MEMORY_BYTES and "a100" not in hardware.name.lower()
    max_num_seqs = options.max_num_seqs or (1024 if large else 256)
    budget = options.max_num_batched_tokens or max(8192 if large else 2048, max_num_seqs)
    if budget < max_num_seqs:
        raise ConfigError(
            f"--max-num-batched-tokens {budget} is less than --max-num-seqs {max_num_seqs}: "
            "every running request needs one token a step; raise the first or lower the second"
        )
    return max_num_seqs, budget


def _max_model_len(model: ModelSpec, options: EngineOptions, kv_tokens: int) -> int:
    """The model's own limit, what the KV cache can hold, or what the user states if both allow it."""
    wanted = options.max_model_len
    if wanted is None:
        return min(model.max_model_len, kv_tokens)
    if wanted > kv_tokens:
        raise ConfigError(
            f"--max-model-len {wanted} is more than the {kv_tokens} tokens that the KV cache holds; "
            "lower it, raise --gpu-memory-utilization or use more devices"
        )
    return wanted
