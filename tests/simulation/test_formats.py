"""Number formats of an engine: what is asked for, what the model is published in, what the hardware can compute."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from simserve.config import EngineOptions
from simserve.errors import ConfigError, HardwareError
from simserve.hardware import load_hardware, stated_uncertainty, uncertainty_of
from simserve.models import METHODS, ModelSpec, Quantization, load_model
from simserve.simulation import EngineSetup, prepare
from simserve.simulation.formats import Formats, formats_of
from simserve.simulation.simulate import describe

LLAMA = load_model("Llama-3.1-8B")
PUBLISHED_FP8 = Quantization("compressed-tensors", "fp8", quantised_activations=True, kv_dtype="fp8")


def formats(hardware: str = "H100", model: ModelSpec = LLAMA, **options: Any) -> Formats:
    return formats_of(model, load_hardware(hardware), EngineOptions(**options))


def setup(**options: Any) -> EngineSetup:
    return prepare(LLAMA, load_hardware("A100"), EngineOptions(**options))


def test_nothing_said_is_the_models_own_dtype() -> None:
    plain = formats()
    assert (plain.quantization, plain.kv_dtype, plain.label) == (None, "bfloat16", "bfloat16")
    assert plain.carried == ()


def test_weights_and_kv_cache_in_fewer_bits_leave_more_blocks() -> None:
    plain, awq, both = setup(), setup(quantization="awq"), setup(quantization="awq", kv_cache_dtype="fp8")
    assert awq.limits.num_blocks > 1.15 * plain.limits.num_blocks
    assert both.limits.num_blocks == pytest.approx(2 * awq.limits.num_blocks, abs=1)
    assert both.block_bytes == plain.block_bytes / 2


def test_a_model_published_in_fewer_bits_needs_no_option() -> None:
    model = replace(LLAMA, quantization=PUBLISHED_FP8)
    own, same = formats(model=model), formats(model=model, quantization="compressed-tensors")
    assert own == same
    assert own.label == "bfloat16, compressed-tensors: fp8 weights, fp8 KV cache"
    assert formats(model=model, kv_cache_dtype="bfloat16").kv_dtype == "bfloat16"


def test_another_method_than_the_models_is_a_contradiction() -> None:
    model = replace(LLAMA, quantization=METHODS["awq"])
    assert formats(model=model, quantization="awq_marlin").quantization == METHODS["awq"]
    with pytest.raises(ConfigError, match=r"--quantization fp8 contradicts .*Llama-3.1-8B, whose config.json says awq"):
        formats(model=model, quantization="fp8")


def test_compressed_tensors_says_nothing_without_a_config() -> None:
    with pytest.raises(ConfigError, match=r"needs a model whose config\.json says how its weights are stored"):
        formats(quantization="compressed-tensors")


def test_fp8_is_computed_where_there_are_units_for_it_and_widened_by_marlin_on_older_nvidia() -> None:
    hopper, ampere = formats("H100", quantization="fp8"), formats("A100", quantization="fp8")
    assert (hopper.weights.computed_in, hopper.weights.activation_bytes) == ("fp8", 1)
    assert (ampere.weights.computed_in, ampere.weights.activation_bytes) == ("bfloat16", 2)
    assert hopper.weights.bytes_per_weight == ampere.weights.bytes_per_weight == 1


@pytest.mark.parametrize(
    ("hardware", "options", "sentence"),
    [
        ("TPUv6e", {"quantization": "fp8"}, "TPUv6e has no peak for fp8: choose one of bfloat16, int8"),
        ("Gaudi2", {"quantization": "int8"}, "Gaudi2 has no peak for int8: choose one of bfloat16, float16, fp8"),
        ("TPUv6e", {"kv_cache_dtype": "fp8"}, "TPUv6e has no peak for fp8 and no kernel that widens it"),
    ],
)
def test_what_the_hardware_has_no_peak_for_is_refused(hardware: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HardwareError, match=sentence):
        formats(hardware, **options)


def test_groups_that_share_a_scale_stay_on_one_device() -> None:
    """Qwen2.5-7B's 18,944 MLP columns are 148 groups, which eight devices cannot share."""
    qwen = load_model("Qwen2.5-7B")
    assert formats(model=qwen, quantization="awq", tensor_parallel_size=4).quantization
    opt = load_model("opt-125m")
    assert formats(model=opt, quantization="gptq", tensor_parallel_size=3).quantization
    with pytest.raises(ConfigError, match="cannot be held in groups of 128 weights on 4 devices: attn_out has 192"):
        formats(model=opt, quantization="gptq", tensor_parallel_size=4)


@pytest.mark.parametrize(
    ("hardware", "options", "operator", "at_least", "said"),
    [
        ("H100", {"quantization": "fp8"}, "gemm", 0.20, "of this device in 16 bits, carried over to fp8 weights"),
        ("A100", {"quantization": "fp8"}, "gemm", 0.30, "of this device in 16 bits, carried over to fp8 weights"),
        ("A100", {"kv_cache_dtype": "fp8"}, "decode_attention", 0.20, "carried over to fp8 KV cache"),
        ("H100", {"quantization": "awq", "kv_cache_dtype": "fp8"}, "gemm", 0.30, "to int4 weights and fp8 KV cache"),
        ("MI300X", {"quantization": "fp8"}, "gemm", 0.36, "from datasheet peaks and assumed efficiencies"),
        ("NPU-Ascend910B", {"quantization": "int8"}, "gemm", 0.0, "from measured operators of this device"),
    ],
)
def test_efficiencies_of_another_format_make_a_prediction_less_sure(
    hardware: str, options: dict[str, Any], operator: str, at_least: float, said: str
) -> None:
    profile, carried = load_hardware(hardware), formats(hardware, **options).carried

    assert said in stated_uncertainty(profile, carried)
    assert uncertainty_of(profile, operator, carried) >= max(at_least, uncertainty_of(profile, operator))
    assert (uncertainty_of(profile, operator, carried) > uncertainty_of(profile, operator)) == bool(carried)


def test_utilisation_is_of_the_fastest_format_in_use() -> None:
    assert describe(setup(quantization="int8"), "any").peak_flops == 624e12
    assert describe(setup(quantization="gptq"), "any").peak_flops == 312e12
