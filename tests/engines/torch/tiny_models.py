"""Tiny models with random weights, one of each architecture, made and saved by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

VOCABULARY = 300
CONTEXT = 512

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,  # of the size of trained weights: answers are not one token over and over
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "head_dim": 16}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
OPT = {"num_key_value_heads": 4, "ffn_dim": 80, "word_embed_proj_dim": 48, "init_std": 0.3, "dropout": 0.0}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-2": ("Llama", {"num_key_value_heads": 4}),
    "llama-3.1": ("Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama-linear-rope": ("Llama", {"rope_parameters": LINEAR, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"rope_parameters": YARN}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-moe": ("Qwen3Moe", MOE | {"norm_topk_prob": True}),
    "qwen2-moe": ("Qwen2Moe", MOE | {"shared_expert_intermediate_size": 56}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "opt": ("OPT", OPT),
    "opt-350m": ("OPT", OPT | {"word_embed_proj_dim": 32, "do_layer_norm_before": False}),
}
"""By name: the prefix of transformers' classes, and what differs from ``SHAPE``."""


def save_tiny_model(name: str, folder: Path, **save_options: Any) -> Any:
    """Make the model ``name``, save it in ``folder`` and return it, in float32 and ready to be asked."""
    import torch
    import transformers

    kind, differs = MODELS[name]
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(7)
    config = getattr(transformers, f"{kind}Config")(**(SHAPE | differs))
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms and biases, which would be ones and zeros
                parameter.add_(torch.randn_like(parameter) * (0.1 if "norm" in parameter_name else 0.3))
    model.save_pretrained(folder, **save_options)
    return model
