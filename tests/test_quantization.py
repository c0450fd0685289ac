"""What a config.json says of its weights' number format, as published checkpoints write it."""

from __future__ import annotations

from typing import Any

import pytest

from simserve.errors import ModelError
from simserve.models import METHODS, ModelSpec, Quantization, load_model, parse_config

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": True, "lm_head": False}
FP8 = {
    "quant_method": "fp8",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
    "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate", "model.layers.0.input_layernorm"],
}


def compressed(weights: dict[str, Any], activations: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "ignore": ["lm_head"], **more}


FLOAT8, INT8 = {"num_bits": 8, "type": "float", "strategy": "channel"}, {"num_bits": 8, "type": "int"}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64, "symmetric": False}


def parse(quantization_config: object) -> ModelSpec:
    return parse_config(LLAMA | {"quantization_config": quantization_config}, source="config.json", name="llama")


@pytest.mark.parametrize(
    ("config", "read"),
    [
        (AWQ, METHODS["awq"]),
        (GPTQ, METHODS["gptq"]),
        (GPTQ | {"bits": 8, "group_size": -1}, Quantization("gptq", "int8", quantised_activations=False)),
        (FP8, METHODS["fp8"]),
        (compressed(FLOAT8, FLOAT8), Quantization("compressed-tensors", "fp8", quantised_activations=True)),
        (compressed(FLOAT8, None), Quantization("compressed-tensors", "fp8", quantised_activations=False)),
        (compressed(INT8, INT8), Quantization("compressed-tensors", "int8", quantised_activations=True)),
        (compressed(INT4, None), Quantization("compressed-tensors", "int4", False, group_size=64, zero_points=True)),
        (
            compressed(FLOAT8, FLOAT8, kv_cache_scheme={"num_bits": 8, "type": "float"}),
            Quantization("compressed-tensors", "fp8", quantised_activations=True, kv_dtype="fp8"),
        ),
    ],
)
def test_configs_of_published_checkpoints(config: dict[str, Any], read: Quantization) -> None:
    assert parse(config).quantization == read


def test_a_config_without_one_is_not_quantised() -> None:
    assert parse(None).quantization is None
    assert load_model("Llama-3.1-8B").quantization is None


def test_scales_and_zero_points_add_to_the_bits_of_a_weight() -> None:
    assert METHODS["fp8"].bytes_per_weight == 1.0
    assert METHODS["gptq"].bytes_per_weight == 0.5 + 2 / 128
    assert METHODS["awq"].bytes_per_weight == 0.5 + 2.5 / 128


def test_a_published_awq_llama_8b_weighs_what_its_files_do() -> None:
    """hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4 has 5.74 GB of safetensors."""
    assert parse(AWQ).weight_bytes == pytest.approx(5.74e9, rel=0.01)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("awq", "key 'quantization_config' must be an object or null, not 'awq'"),
        ({"bits": 4}, "config.json, quantization_config: key 'quant_method' is missing"),
        ({"quant_method": "bitsandbytes"}, "'quant_method' is 'bitsandbytes', which is not one of awq, gptq, fp8, com"),
        (AWQ | {"bits": 3}, "key 'bits' is 3, which is not one of 4"),
        (GPTQ | {"lm_head": True}, "key 'lm_head' is true: a quantised lm_head is not supported"),
        (GPTQ | {"dynamic": {"-:.*up_proj": {}}}, "key 'dynamic' gives layers formats of their own"),
        (AWQ | {"modules_to_not_convert": ["model.layers.0.self_attn"]}, "leaves model.layers.0.self_attn unquantised"),
        (FP8 | {"ignored_layers": ["model.layers.0"]}, "key 'ignored_layers' leaves model.layers.0 unquantised"),
        (compressed(INT8, None) | {"ignore": ["re:.*down_proj$"]}, r"leaves re:\.\*down_proj\$ unquantised"),
        (compressed(INT4, INT8), "has 4-bit int weights with quantised activations: not supported"),
        (compressed({"num_bits": 4, "type": "float"}, None), "has 4-bit float weights: not supported"),
        (compressed(FLOAT8, INT8), "has activations in another format than weights"),
        (compressed(INT8, INT8) | {"config_groups": {}}, "'config_groups' must be an object of objects"),
        (compressed(INT8, INT8, kv_cache_scheme={"num_bits": 8, "type": "int"}), "'kv_cache_scheme' is not of 8-bit"),
    ],
)
def test_what_is_not_modelled_is_refused_with_its_key(config: object, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        parse(config)


def test_layers_of_several_formats_are_refused() -> None:
    config = compressed(INT8, INT8)
    config["config_groups"]["group_1"] = {"weights": FLOAT8, "input_activations": FLOAT8}
    with pytest.raises(ModelError, match="has 2 different schemes, where one is supported"):
        parse(config)
