"""Settings of one engine (replica), by vLLM's names; what the scheduler, the memory model, server and CLI share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from simserve.errors import ConfigError

DEFAULT_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
DEFAULT_TORCH_MODEL = "simserve/tiny-chat"
DEFAULT_HARDWARE = "A100"
"""What is served where nobody says."""

Permission = Literal["all", "chat", "completions", "embeddings", "models", "admin"]
"""What a key of a server may open."""

WEIGHT_DTYPES = ("bfloat16", "float16", "float32")

DTYPE_NAMES: Mapping[str, str | None] = {
    "auto": None, "half": "float16", "float": "float32", **{name: name for name in WEIGHT_DTYPES}
}  # fmt: skip
"""What ``--dtype`` takes, as in vLLM, and what it stands for."""

QUANTIZATIONS = {
    "fp8": "fp8", "int8": "int8", "awq": "awq", "awq_marlin": "awq", "gptq": "gptq", "gptq_marlin": "gptq",
    "compressed-tensors": "compressed-tensors",
}  # fmt: skip
"""What ``--quantization`` takes, and the method it means: vLLM runs awq and gptq by Marlin kernels by itself."""

KV_CACHE_DTYPES = {"bfloat16": "bfloat16", "float16": "float16", "fp8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8"}
"""What ``--kv-cache-dtype`` takes beside auto, and how it is stored."""


@dataclass(frozen=True)
class EngineOptions:
    """How one engine is set up. ``None`` is what the preset, else the policy, has, and is resolved when it is built.

    ``policy`` is a name or ``file.py:Class``; ``engine_preset`` a name in :data:`PRESETS`. ``num_gpu_blocks`` overrides
    the memory model; ``max_num_batched_tokens`` is the token budget of one step. Without ``quantization`` weights are
    as the model's config.json says. ``count_graph_memory`` takes captured graphs from the memory for KV blocks.
    ``front_end`` is what :func:`simserve.latency.front_end.front_end_named` takes. ``host_step_us`` and
    ``host_request_us`` are what the host does around a step, and for each request in it, in microseconds.
    ``speculative_config`` is JSON, or the object, of :mod:`simserve.simulation.features.speculation`.
    ``kv_offloading_size`` and ``kv_disk_size`` are GiB of a replica's host for KV; bandwidths are 10^9 bytes a second.
    ``lora_load_ms`` is what reading an adapter takes beside its bytes.
    Raises :class:`ConfigError` for a value that no engine could run with.
    """

    engine_preset: str | None = None
    policy: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    num_gpu_blocks: int | None = None
    count_graph_memory: bool | None = None
    enforce_eager: bool = False
    block_size: int = 16
    enable_prefix_caching: bool | None = None
    enable_chunked_prefill: bool | None = None
    long_prefill_token_threshold: int | None = None
    reserve_full_prompt: bool | None = None
    async_scheduling: bool | None = None
    scheduling_policy: str | None = None
    watermark: float | None = None
    chunked_prefill_size: int | None = None
    schedule_policy: str | None = None
    schedule_conservativeness: float | None = None
    front_end: str = "none"
    api_server_count: int | None = None
    host_step_us: float | None = None
    host_request_us: float | None = None
    kv_offloading_size: float | None = None
    kv_offloading_bandwidth: float | None = None
    kv_offloading_latency_us: float | None = None
    kv_disk_size: float | None = None
    kv_disk_bandwidth: float | None = None
    kv_disk_latency_us: float | None = None
    speculative_config: str | dict[str, Any] | None = None
    enable_lora: bool = False
    max_loras: int | None = None
    max_lora_rank: int | None = None
    max_cpu_loras: int | None = None
    lora_load_ms: float | None = None
    lora_disk_bandwidth: float | None = None
    lora_link_bandwidth: float | None = None

    def __post_init__(self) -> None:
        _at_least_one("--tensor-parallel-size", self.tensor_parallel_size)
        _at_least_one("--pipeline-parallel-size", self.pipeline_parallel_size)
        _at_least_one("--max-num-seqs", self.max_num_seqs)
        _at_least_one("--max-num-batched-tokens", self.max_num_batched_tokens)
        _at_least_one("--max-model-len", self.max_model_len)
        _at_least_one("--block-size", self.block_size)
        _at_least_one("--chunked-prefill-size", self.chunked_prefill_size)
        _at_least_one("--api-server-count", self.api_server_count)
        _one_of("--engine-preset", self.engine_preset, PRESETS)
        _one_of("--scheduling-policy", self.scheduling_policy, ("fcfs", "priority"))
        _one_of("--schedule-policy", self.schedule_policy, ("fcfs", "lpm"))
        _one_of("--dtype", self.dtype, WEIGHT_DTYPES)
        _one_of("--quantization", self.quantization, QUANTIZATIONS)
        _one_of("--kv-cache-dtype", self.kv_cache_dtype, ("auto", *KV_CACHE_DTYPES))
        _not_negative("--host-step-us", self.host_step_us)
        _not_negative("--host-request-us", self.host_request_us)
        _check_tiers(self)
        _check_lora(self)
        if isinstance(self.speculative_config, dict):
            object.__setattr__(self, "speculative_config", json.dumps(self.speculative_config))
        if self.num_gpu_blocks is not None and self.num_gpu_blocks < 2:
            raise ConfigError("--num-gpu-blocks must be at least 2: one block is never handed out")
        if self.long_prefill_token_threshold is not None and self.long_prefill_token_threshold < 0:
            raise ConfigError("--long-prefill-token-threshold must be 0 (off) or more")
        if self.gpu_memory_utilization is not None and not 0.0 < self.gpu_memory_utilization <= 1.0:
            raise ConfigError("--gpu-memory-utilization is a fraction: give more than 0 and at most 1")
        if self.watermark is not None and not 0.0 <= self.watermark < 1.0:
            raise ConfigError("--watermark is a fraction of the KV blocks: give at least 0 and less than 1")
        if self.schedule_conservativeness is not None and not self.schedule_conservativeness > 0.0:
            raise ConfigError("--schedule-conservativeness must be more than 0; 1 is SGLang's default")


PRESETS: Mapping[str, Mapping[str, bool | float | str]] = {
    "vllm-0.22": {  # 0.92 of memory from 0.22 on, and the memory of graphs counted from 0.21 on
        "policy": "vllm-v1", "async_scheduling": True, "reserve_full_prompt": True, "gpu_memory_utilization": 0.92,
        "count_graph_memory": True,
    },
    "vllm-0.19": {  # the whole prompt must fit before it starts: pull request 37307, March 2026
        "policy": "vllm-v1", "async_scheduling": True, "reserve_full_prompt": True, "gpu_memory_utilization": 0.9,
    },
    "vllm-0.14": {  # asynchronous scheduling is the default from 0.14.0, January 2026
        "policy": "vllm-v1", "async_scheduling": True, "reserve_full_prompt": False, "gpu_memory_utilization": 0.9,
    },
    "vllm-0.11": {  # asynchronous scheduling is there from 0.10 on, and off
        "policy": "vllm-v1", "async_scheduling": False, "reserve_full_prompt": False, "gpu_memory_utilization": 0.9,
    },
    "vllm-0.6": {  # the engine before V1
        "policy": "vllm-v0", "gpu_memory_utilization": 0.9,
    },
    "vllm-0.5": {  # the API server in the engine's process
        "policy": "vllm-v0", "gpu_memory_utilization": 0.9, "host_request_us": 420.0,
    },
    "vllm-0.1": {  # and one request sampled after the other
        "policy": "vllm-v0", "gpu_memory_utilization": 0.9, "host_request_us": 670.0,
    },
    "sglang-0.5": {  # overlap scheduling, its word for asynchronous scheduling, is the default
        "policy": "sglang", "async_scheduling": True,
    },
}  # fmt: skip
"""What ``--engine-preset`` sets where the user says nothing: defaults of engine versions, with what changed then.

Host time per request: up to 0.5.3, vLLM's API server shared a process with the engine. It took 33 % of the time and
scheduling 29 %, with Llama-3-8B on an H100 (blog.vllm.ai, 2024-09-05). At 10 requests/s of 150 tokens, a token took
70.7 ms there (github.com/vllm-project/vllm, pull request 6880, July 2024), so that 105 requests were running: 0.42 ms
each. Up to 0.1 the sampler went through requests one by one. Doing without raised 3.70 to 4.77 requests/s of some 240
tokens (pull request 820, August 2023; a 13B model on an A100), which is 0.25 ms for each token.
"""


def _check_tiers(options: EngineOptions) -> None:
    for name in ("kv_offloading_size", "kv_offloading_bandwidth", "kv_disk_size", "kv_disk_bandwidth"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"--{name.replace('_', '-')} must be more than 0, not {value}")
    _not_negative("--kv-offloading-latency-us", options.kv_offloading_latency_us)
    _not_negative("--kv-disk-latency-us", options.kv_disk_latency_us)
    for tier, upper in (("kv_disk", "kv_offloading_size"), ("kv_offloading", "kv_offloading_size")):
        given = [f"{tier}_{what}" for what in ("size", "bandwidth", "latency_us")]
        first = next((name for name in given if getattr(options, name) is not None), None)
        if first is not None and getattr(options, upper) is None:
            flags = [f"--{name.replace('_', '-')}" for name in (first, upper)]
            raise ConfigError(f"{flags[0]} needs {flags[1]}: KV comes to the host's memory first")
    for what in ("bandwidth", "latency_us"):
        if getattr(options, f"kv_disk_{what}") is not None and options.kv_disk_size is None:
            raise ConfigError(f"--kv-disk-{what.replace('_', '-')} needs --kv-disk-size: without it there is no disk")


LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What ``--max-lora-rank`` takes, as in vLLM."""

LORA_OPTIONS = (
    "max_loras",
    "max_lora_rank",
    "max_cpu_loras",
    "lora_load_ms",
    "lora_disk_bandwidth",
    "lora_link_bandwidth",
)


def _check_lora(options: EngineOptions) -> None:
    for name in LORA_OPTIONS if not options.enable_lora else ():
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} needs --enable-lora: without it there are no adapters")
    _at_least_one("--max-loras", options.max_loras)
    rank = options.max_lora_rank
    if rank is not None and rank not in LORA_RANKS:
        raise ConfigError(f"--max-lora-rank {rank} is none of vLLM's: {', '.join(map(str, LORA_RANKS))}")
    slots, cached = options.max_loras or 1, options.max_cpu_loras
    if cached is not None and cached < slots:
        raise ConfigError(
            f"--max-cpu-loras {cached} is less than --max-loras {slots}: what is on the device is on the host too"
        )
    _not_negative("--lora-load-ms", options.lora_load_ms)
    for name in ("lora_disk_bandwidth", "lora_link_bandwidth"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"--{name.replace('_', '-')} must be more than 0, not {value}")


def _at_least_one(flag: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ConfigError(f"{flag} must be at least 1, not {value}")


def _not_negative(flag: str, value: float | None) -> None:
    if value is not None and not 0 <= value < float("inf"):
        raise ConfigError(f"{flag} must be a number of at least 0, not {value}")


def _one_of(flag: str, value: str | None, choices: Mapping[str, object] | tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise ConfigError(f"{flag} {value} is not known; choose one of {', '.join(choices)}")
