"""Every kind of server that can be asked, by the names that ``vllm bench serve`` has or had for it.

A new one is a file beside this one and a line here.
"""

from __future__ import annotations

from dataclasses import replace

from simserve.bench.backends import (
    deepspeed_mii,
    openai_audio,
    openai_chat,
    openai_responses,
    openai_text,
    pooling,
    text_generation_inference,
    triton,
)
from simserve.bench.backends.base import Answer, Ask, Backend
from simserve.errors import ConfigError

BACKENDS: dict[str, Backend] = {
    **{name: openai_text.backend(name) for name in ("openai", "vllm", "sglang", "lmdeploy", "scalellm", "llama.cpp")},
    "openai-chat": openai_chat.BACKEND,
    "openai-responses": openai_responses.BACKEND,
    "openai-audio": openai_audio.BACKEND,
    "tgi": text_generation_inference.BACKEND,
    "tensorrt-llm": triton.BACKEND,
    "deepspeed-mii": deepspeed_mii.BACKEND,
    "openai-embeddings": pooling.EMBEDDINGS,
    "openai-embeddings-chat": pooling.EMBEDDINGS_CHAT,
    "vllm-pooling": pooling.POOLING,
    "vllm-rerank": pooling.VLLM_RERANK,
    "embeddings": replace(pooling.EMBEDDINGS, name="embeddings"),
    "rerank": pooling.RERANK,
}


def find_backend(name: str) -> Backend:
    """The backend of that name; raises :class:`ConfigError` if there is none."""
    if name not in BACKENDS:
        raise ConfigError(f"there is no backend '{name}'; choose one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


__all__ = ["BACKENDS", "Answer", "Ask", "Backend", "find_backend"]
