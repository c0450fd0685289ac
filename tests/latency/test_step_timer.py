"""Step times against published ones, and what padding, quantisation, parallelism and the host do to them."""

from __future__ import annotations

from typing import Any

import pytest

from simserve.hardware import load_hardware
from simserve.latency import VLLM_V0, HostCosts, StepTimer
from simserve.latency.number_formats import weight_format
from simserve.models import METHODS, load_model


def timer_of(
    hardware: str = "A100", model: str = "Llama-3.1-8B", quantization: str | None = None, **options: Any
) -> StepTimer:
    profile = load_hardware(hardware)
    settings: dict[str, Any] = {"dtype": "bfloat16", "tensor_parallel_size": 1, "max_tokens": 8192, "max_seqs": 256}
    if quantization:
        settings["weights"] = weight_format(METHODS[quantization], "bfloat16", profile)
    return StepTimer(load_model(model), profile, **(settings | options))


@pytest.mark.parametrize(("batch", "published_ms"), [(1, 11.9), (32, 15.6), (128, 24.8)])
def test_decoding_llama_8b_at_1k_context_on_an_a100(batch: int, published_ms: float) -> None:
    assert timer_of().step_s(batch, batch * 1024, [], batch) * 1e3 == pytest.approx(published_ms, rel=0.1)


@pytest.mark.parametrize(("tokens", "published_ms"), [(512, 36), (1024, 65), (4096, 259)])
def test_prefilling_llama_8b_on_an_a100(tokens: int, published_ms: float) -> None:
    assert timer_of().step_s(0, 0, [(tokens, 0)], 1) * 1e3 == pytest.approx(published_ms, rel=0.1)


def test_batches_are_padded_to_the_sizes_of_captured_graphs() -> None:
    padded, bare = timer_of(max_seqs=64), timer_of(max_seqs=64, graphs=False)

    assert padded._body_s[33] == padded._body_s[40] == bare._body_s[40]
    assert padded._body_s[33] > bare._body_s[33]
    assert padded._body_s[129] == bare._body_s[129], "graphs end at twice max_num_seqs"


def test_small_steps_without_graphs_wait_for_their_launches() -> None:
    tiny = timer_of("B200", "Llama-3.2-1B-Instruct", graphs=False)

    assert tiny._body_s[1] == pytest.approx(16 * 9 * 5e-6)
    assert timer_of("B200", "Llama-3.2-1B-Instruct")._body_s[1] < tiny._body_s[1]


@pytest.mark.parametrize(("method", "most"), [("fp8", 0.65), ("int8", 0.65), ("awq", 0.45), ("gptq", 0.45)])
def test_lighter_weights_make_small_batches_faster(method: str, most: float) -> None:
    plain, light = timer_of(), timer_of(quantization=method)

    assert light.step_s(1, 1024, [], 1) < most * plain.step_s(1, 1024, [], 1)


def test_only_formats_computed_as_stored_make_large_batches_faster() -> None:
    plain, int4, fp8, int8 = (timer_of(quantization=method) for method in (None, "gptq", "fp8", "int8"))
    step = (0, 0, [(4096, 0)], 1)

    assert int4.step_s(*step) == pytest.approx(plain.step_s(*step), rel=0.05)
    assert fp8.step_s(*step) == pytest.approx(plain.step_s(*step), rel=0.05), "an A100 has no fp8 units: widened"
    assert int8.step_s(*step) < 0.7 * plain.step_s(*step)


def test_a_lighter_kv_cache_makes_long_contexts_faster() -> None:
    plain, light = timer_of(), timer_of(kv_dtype="int8")

    assert light.step_s(64, 64 * 8192, [], 64) < 0.7 * plain.step_s(64, 64 * 8192, [], 64)


def test_two_devices_are_faster_than_one_but_not_twice() -> None:
    one, two = timer_of(), timer_of(tensor_parallel_size=2)
    step = (32, 32 * 1024, [], 32)

    assert one.step_s(*step) / 2 < two.step_s(*step) < one.step_s(*step)


def test_decodes_beside_a_chunk_cost_more_where_the_kernel_does_not_pack_query_heads() -> None:
    timer = timer_of("RTX4090")
    chunk, decodes = timer.step_s(0, 0, [(512, 0)], 1), timer._decode.lines.of(64).at(64 * 2048) * 32

    assert timer.step_s(64, 64 * 2048, [(512, 0)], 65) > chunk + 1.5 * decodes


def test_the_host_is_hidden_only_behind_a_busy_device() -> None:
    host = HostCosts(step_s=1e-3, request_s=1e-4)

    assert host.seconds(10e-3, requests=8) == 10e-3
    assert host.seconds(1e-3, requests=8) == pytest.approx(1.8e-3)
    assert VLLM_V0.seconds(10e-3, requests=10) == pytest.approx(11.22e-3)
