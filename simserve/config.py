"""Settings of one engine (replica), by vLLM's names; what the scheduler, the memory model and the CLI share."""

from __future__ import annotations

from dataclasses import dataclass

from simserve.errors import ConfigError

WEIGHT_DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class EngineOptions:
    """How one engine is set up. ``None`` means "what vLLM would choose here" and is resolved when the engine is built.

    ``num_gpu_blocks`` overrides the memory model; ``max_num_batched_tokens`` is the token budget of one step.
    Raises :class:`ConfigError` for a value that no engine could run with.
    """

    policy: str = "vllm-v1"
    dtype: str | None = None
    tensor_parallel_size: int = 1
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    gpu_memory_utilization: float = 0.9
    num_gpu_blocks: int | None = None
    block_size: int = 16
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    reserve_full_prompt: bool = True
    async_scheduling: bool = True

    def __post_init__(self) -> None:
        _at_least_one("--tensor-parallel-size", self.tensor_parallel_size)
        _at_least_one("--max-num-seqs", self.max_num_seqs)
        _at_least_one("--max-num-batched-tokens", self.max_num_batched_tokens)
        _at_least_one("--max-model-len", self.max_model_len)
        _at_least_one("--block-size", self.block_size)
        if self.num_gpu_blocks is not None and self.num_gpu_blocks < 2:
            raise ConfigError("--num-gpu-blocks must be at least 2: one block is never handed out")
        if self.long_prefill_token_threshold < 0:
            raise ConfigError("--long-prefill-token-threshold must be 0 (off) or more")
        if not 0.0 < self.gpu_memory_utilization <= 1.0:
            raise ConfigError("--gpu-memory-utilization is a fraction: give more than 0 and at most 1")
        if self.dtype is not None and self.dtype not in WEIGHT_DTYPES:
            raise ConfigError(f"--dtype {self.dtype} is not supported; choose one of {', '.join(WEIGHT_DTYPES)}")


def _at_least_one(flag: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ConfigError(f"{flag} must be at least 1, not {value}")
