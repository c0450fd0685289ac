"""Names that a command line must know before anything slow is imported."""

from __future__ import annotations

BACKEND_NAMES = (
    "openai", "vllm", "sglang", "lmdeploy", "scalellm", "llama.cpp", "openai-chat", "openai-responses", "openai-audio",
    "tgi", "tensorrt-llm", "deepspeed-mii", "openai-embeddings", "openai-embeddings-chat", "vllm-pooling",
    "vllm-rerank", "embeddings", "rerank",
)  # fmt: skip

DATASET_NAMES = (
    "random", "sharegpt", "sonnet", "burstgpt", "custom", "custom_image", "custom_audio", "spec_bench", "hf",
    "prefix_repetition", "prefix-repetition", "timed_trace", "random-mm", "random-audio", "random-rerank",
)  # fmt: skip
