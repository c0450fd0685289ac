"""From what a user asks for to an engine that can run: options resolved, weights loaded, memory planned."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from simserve.config import EngineOptions
from simserve.engines.torch.build import DTYPES, load_transformer
from simserve.engines.torch.core import EngineCore
from simserve.engines.torch.memory import GIB, plan_pages
from simserve.engines.torch.runner import ModelRunner
from simserve.errors import CapacityError, ConfigError
from simserve.models import ModelSpec, load_model
from simserve.scheduling import Scheduler, SchedulerLimits
from simserve.simulation.policies import resolve
from simserve.workload import load_tokenizer

DEFAULT_MAX_NUM_SEQS = 64
DEFAULT_STEP_TOKENS = 2048


def load_core(
    model: str | Path | ModelSpec,
    device: str = "cpu",
    dtype: str | None = None,
    options: EngineOptions | None = None,
    *,
    random_weights: bool = False,
    compiled: bool = False,
    clock_s: Callable[[], float] = time.monotonic,
) -> EngineCore:
    """An engine for ``model``: a Hugging Face folder, or shapes with ``random_weights``.

    Build it in the thread that will step it. Raises :class:`ConfigError` for options that the torch engine cannot
    honour, :class:`simserve.errors.ModelError` for files it cannot read, :class:`CapacityError` if it does not fit.
    """
    spec = model if isinstance(model, ModelSpec) else load_model(str(model))
    asked = options or EngineOptions()
    place, name = _device(device), dtype or asked.dtype or spec.dtype
    if name not in DTYPES:
        raise ConfigError(
            f"dtype {name} is not one that the torch engine computes in; choose one of {', '.join(DTYPES)}"
        )
    policy, resolved = resolve(_checked(asked))
    transformer = load_transformer(spec, place, name, random_weights=random_weights, compiled=compiled)
    limits = _limits(spec, policy, replace(resolved, gpu_memory_utilization=asked.gpu_memory_utilization), name, place)
    try:
        runner = ModelRunner(transformer, limits.num_blocks, limits.block_size, compiled=compiled)
    except (RuntimeError, MemoryError) as error:
        kv_bytes = spec.kv_bytes_per_token(name) * limits.num_blocks * limits.block_size
        raise CapacityError(
            f"{limits.num_blocks} KV blocks of {spec.name} take {kv_bytes / GIB:.1f} GiB, which {place} does not give "
            f"({str(error).splitlines()[0]}); lower --num-gpu-blocks or --gpu-memory-utilization"
        ) from None
    return EngineCore(runner, policy(limits), load_tokenizer(spec.path), clock_s)


def default_device() -> str:
    """Where to run if nobody says: on a GPU if torch finds one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device '{name}' is not known; choose cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"the torch engine runs on cpu or cuda, and not on {device.type}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("this torch finds no CUDA device; choose --device cpu")
    return device


def _checked(options: EngineOptions) -> EngineOptions:
    if options.async_scheduling:
        raise ConfigError("the torch engine plans a step when the one before it is done: leave --async-scheduling out")
    if options.tensor_parallel_size != 1:
        raise ConfigError("the torch engine runs on one device; leave --tensor-parallel-size out")
    return replace(options, async_scheduling=False)


def _limits(
    spec: ModelSpec, policy: type[Scheduler], options: EngineOptions, dtype: str, device: torch.device
) -> SchedulerLimits:
    seqs = options.max_num_seqs or DEFAULT_MAX_NUM_SEQS
    budget = options.max_num_batched_tokens or options.chunked_prefill_size
    if budget is None:
        longest = options.max_model_len or spec.max_model_len
        budget = max(longest, DEFAULT_STEP_TOKENS) + seqs if policy.whole_prompts else max(DEFAULT_STEP_TOKENS, seqs)
    if budget < seqs and not policy.alternates:
        raise ConfigError(
            f"--max-num-batched-tokens {budget} is less than --max-num-seqs {seqs}: "
            "every running request needs one token a step; raise the first or lower the second"
        )
    num_blocks = plan_pages(spec, dtype, device, options, seqs=seqs, step_tokens=budget)
    return SchedulerLimits(
        num_blocks=num_blocks,
        block_size=options.block_size,
        max_num_seqs=seqs,
        max_num_batched_tokens=budget,
        max_model_len=_max_model_len(spec, options, (num_blocks - 1) * options.block_size),
        prefix_caching=bool(options.enable_prefix_caching),
        chunked_prefill=bool(options.enable_chunked_prefill),
        long_prefill_token_threshold=options.long_prefill_token_threshold or 0,
        reserve_full_prompt=bool(options.reserve_full_prompt),
        watermark=options.watermark or 0.0,
        longest_prefix_first=options.schedule_policy == "lpm",
        schedule_conservativeness=options.schedule_conservativeness or 1.0,
    )


def _max_model_len(spec: ModelSpec, options: EngineOptions, kv_tokens: int) -> int:
    wanted = options.max_model_len
    if wanted is None:
        return min(spec.max_model_len, kv_tokens)
    for most, what in ((spec.max_model_len, f"{spec.name} was made for"), (kv_tokens, "the KV cache holds")):
        if wanted > most:
            raise ConfigError(f"--max-model-len {wanted} is more than the {most} tokens that {what}; lower it")
    return wanted
