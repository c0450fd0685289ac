"""Reading a Hugging Face ``config.json`` into a ModelSpec; the defaults are those of the ``transformers`` library.

What would change a prediction and is not modelled (a sliding window, a number format) is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from simserve.models.keys import Keys
from simserve.models.quantization import Quantization, parse_quantization
from simserve.models.spec import ModelSpec, MoeSpec

MODEL_DTYPES = ("bfloat16", "float16", "float32")
# OPT's position table has two rows before position 0, as the padding token's leftovers.
OPT_POSITION_OFFSET = 2


def parse_config(config: Mapping[str, Any], *, source: str, name: str, path: Path | None = None) -> ModelSpec:
    """Turn the content of a config.json into a ModelSpec called ``name``.

    ``source`` names the file in errors. Raises :class:`ModelError` naming the key that is missing or not supported.
    """
    keys = Keys(config, source)
    build = ARCHITECTURES.get(_architecture(keys))
    if build is None:
        supported = ", ".join(ARCHITECTURES)
        raise keys.error("architectures", f"is {_architecture(keys)!r}, which is not one of {supported}")
    _refuse_unmodelled(keys)
    return replace(build(keys), name=name, path=path, quantization=_quantization(keys))


def _llama(keys: Keys) -> ModelSpec:
    bias = keys.boolean("attention_bias", default=False)
    spec = _decoder(keys, num_kv_heads=keys.integer("num_attention_heads"))
    return replace(spec, qkv_bias=bias, output_bias=bias, mlp_bias=keys.boolean("mlp_bias", default=False))


def _mistral(keys: Keys) -> ModelSpec:
    return _decoder(keys)


def _mixtral(keys: Keys) -> ModelSpec:
    spec = _decoder(keys)
    moe = MoeSpec(
        num_experts=keys.integer("num_local_experts"),
        experts_per_token=keys.integer("num_experts_per_tok"),
        expert_intermediate_size=spec.intermediate_size,
        sparse_layers=tuple(range(spec.num_layers)),
    )
    return _with_experts(keys, spec, moe)


def _qwen2(keys: Keys) -> ModelSpec:
    return replace(_decoder(keys), qkv_bias=True)


def _qwen2_moe(keys: Keys) -> ModelSpec:
    return _qwen_moe(keys, _qwen2(keys), shared=keys.integer("shared_expert_intermediate_size"))


def _qwen3(keys: Keys) -> ModelSpec:
    keys.integer("head_dim")  # required here: Qwen3's heads are wider than hidden_size / num_attention_heads
    bias = keys.boolean("attention_bias", default=False)
    return replace(_decoder(keys), qkv_bias=bias, output_bias=bias, qk_norm=True)


def _qwen3_moe(keys: Keys) -> ModelSpec:
    return _qwen_moe(keys, _qwen3(keys))


def _opt(keys: Keys) -> ModelSpec:
    bias = keys.boolean("enable_bias", default=True)
    if not keys.boolean("layer_norm_elementwise_affine", default=True):
        raise keys.error("layer_norm_elementwise_affine", "is false, which is not supported")
    keeps_final_norm = not keys.boolean("_remove_final_layer_norm", default=False)
    spec = _decoder(
        keys,
        num_kv_heads=keys.integer("num_attention_heads"),
        intermediate_key="ffn_dim",
        tied=True,
        embedding_size=keys.integer("word_embed_proj_dim", default=keys.integer("hidden_size")),
    )
    return replace(
        spec,
        gated_mlp=False,
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=bias,
        norm="layernorm",
        final_norm=keeps_final_norm and keys.boolean("do_layer_norm_before", default=True),
        learned_positions=keys.integer("max_position_embeddings") + OPT_POSITION_OFFSET,
    )


ARCHITECTURES: dict[str, Callable[[Keys], ModelSpec]] = {
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _mistral,
    "MixtralForCausalLM": _mixtral,
    "Qwen2ForCausalLM": _qwen2,
    "Qwen2MoeForCausalLM": _qwen2_moe,
    "Qwen3ForCausalLM": _qwen3,
    "Qwen3MoeForCausalLM": _qwen3_moe,
    "OPTForCausalLM": _opt,
}


def _decoder(
    keys: Keys,
    *,
    num_kv_heads: int | None = None,
    intermediate_key: str = "intermediate_size",
    tied: bool = False,
    embedding_size: int | None = None,
) -> ModelSpec:
    """What all architectures share; the arguments are the defaults that differ between them."""
    hidden_size, heads = keys.integer("hidden_size"), keys.integer("num_attention_heads")
    kv_heads = keys.integer("num_key_value_heads", default=num_kv_heads)
    if heads % kv_heads:
        raise keys.error("num_key_value_heads", f"is {kv_heads}, which does not divide the {heads} heads")
    if keys.config.get("head_dim") is None and hidden_size % heads:
        raise keys.error("num_attention_heads", f"is {heads}, which does not divide hidden_size {hidden_size}")
    return ModelSpec(
        name="",
        architecture=_architecture(keys),
        dtype=_dtype(keys),
        num_layers=keys.integer("num_hidden_layers"),
        hidden_size=hidden_size,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=keys.integer("head_dim", default=hidden_size // heads),
        intermediate_size=keys.integer(intermediate_key),
        vocab_size=keys.integer("vocab_size"),
        max_model_len=_max_model_len(keys),
        tie_word_embeddings=keys.boolean("tie_word_embeddings", default=tied),
        embedding_size=embedding_size or hidden_size,
    )


def _qwen_moe(keys: Keys, spec: ModelSpec, shared: int = 0) -> ModelSpec:
    step = keys.integer("decoder_sparse_step", default=1)
    dense_only = keys.config.get("mlp_only_layers") or []
    if not isinstance(dense_only, list):
        raise keys.error("mlp_only_layers", f"must be a list of layer numbers, not {dense_only!r}")
    sparse = tuple(i for i in range(spec.num_layers) if i not in dense_only and (i + 1) % step == 0)
    moe = MoeSpec(
        # transformers 5 writes Mixtral's name for it.
        num_experts=keys.integer("num_local_experts" if "num_local_experts" in keys.config else "num_experts"),
        experts_per_token=keys.integer("num_experts_per_tok"),
        expert_intermediate_size=keys.integer("moe_intermediate_size"),
        sparse_layers=sparse,
        shared_expert_intermediate_size=shared,
    )
    return _with_experts(keys, spec, moe)


def _with_experts(keys: Keys, spec: ModelSpec, moe: MoeSpec) -> ModelSpec:
    if moe.experts_per_token > moe.num_experts:
        problem = f"is {moe.experts_per_token}, more than the {moe.num_experts} experts there are"
        raise keys.error("num_experts_per_tok", problem)
    return replace(spec, moe=moe)


def _architecture(keys: Keys) -> str:
    names = keys.config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise keys.error("architectures", f"must be a list with the one name of the model's class, not {names!r}")
    return names[0]


def _dtype(keys: Keys) -> str:
    # transformers 5 writes "dtype" where earlier versions wrote "torch_dtype".
    dtype = keys.text("torch_dtype", "dtype")
    if dtype not in MODEL_DTYPES:
        raise keys.error("torch_dtype", f"is '{dtype}', which is not one of {', '.join(MODEL_DTYPES)}")
    return dtype


def _max_model_len(keys: Keys) -> int:
    """Longest sequence, as vLLM derives it: some rotary scalings stretch it, Llama 3's is in the config already."""
    trained_tokens = keys.integer("max_position_embeddings")
    scaling = keys.config.get("rope_scaling") or keys.config.get("rope_parameters") or {}
    if not isinstance(scaling, Mapping):
        raise keys.error("rope_scaling", f"must be an object or null, not {scaling!r}")
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind not in ("linear", "dynamic", "yarn"):
        return trained_tokens
    factor = scaling.get("factor")
    if not isinstance(factor, int | float) or factor <= 0:
        raise keys.error("rope_scaling.factor", f"must be a positive number, not {factor!r}")
    if kind == "yarn":
        trained_tokens = Keys(scaling, keys.source).integer("original_max_position_embeddings", trained_tokens)
    return int(trained_tokens * factor)


def _quantization(keys: Keys) -> Quantization | None:
    content = keys.config.get("quantization_config")
    if content is None:
        return None
    if not isinstance(content, Mapping):
        raise keys.error("quantization_config", f"must be an object or null, not {content!r}")
    return parse_quantization(Keys(content, f"{keys.source}, quantization_config"))


def _refuse_unmodelled(keys: Keys) -> None:
    window = keys.config.get("sliding_window")
    # Qwen's configs state a window and switch it off; Mistral's have no switch.
    in_use = keys.boolean("use_sliding_window", default="use_sliding_window" not in keys.config)
    if window is not None and in_use and keys.integer("sliding_window") < _max_model_len(keys):
        problem = f"is {window}: only full attention is supported, set it to null to simulate the model with that"
        raise keys.error("sliding_window", problem)
