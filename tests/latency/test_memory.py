"""How many KV blocks fit, against what an engine reported."""

from __future__ import annotations

from typing import Any

import pytest

from simserve.errors import CapacityError
from simserve.hardware import load_hardware
from simserve.latency import MemoryPlan, plan_memory
from simserve.models import METHODS, load_model


def plan(hardware: str = "RTX4090", model: str = "Llama-3.1-8B", **options: Any) -> MemoryPlan:
    settings: dict[str, Any] = {
        "dtype": "bfloat16",
        "tensor_parallel_size": 1,
        "gpu_memory_utilization": 0.9,
        "block_size": 16,
        "max_num_batched_tokens": 2048,
        "max_num_seqs": 256,
    }
    return plan_memory(load_model(model), load_hardware(hardware), **(settings | options))


def test_an_rtx_4090_holds_what_vllm_reported_for_llama_8b() -> None:
    assert plan().num_blocks == pytest.approx(2588, rel=0.03)


def test_lighter_weights_and_kv_cache_leave_more_blocks() -> None:
    usual, weights, cache = plan(), plan(quantization=METHODS["awq"]), plan(kv_dtype="fp8")

    assert 0.35 < weights.weight_bytes / usual.weight_bytes < 0.36, "embedding and lm_head stay as they are"
    assert weights.num_blocks > 2.9 * usual.num_blocks
    assert cache.block_bytes == usual.block_bytes / 2
    assert cache.num_blocks == pytest.approx(2 * usual.num_blocks, abs=1)


def test_sampling_many_sequences_takes_memory_from_the_kv_cache() -> None:
    assert plan(max_num_seqs=512, max_num_batched_tokens=2048).num_blocks < 0.8 * plan().num_blocks


def test_several_devices_need_buffers_to_talk() -> None:
    one, two = plan("A100"), plan("A100", tensor_parallel_size=2)

    assert two.runtime_bytes - one.runtime_bytes == 342 * 2**20
    assert two.num_blocks > 2 * one.num_blocks


def test_weights_that_do_not_fit_are_refused_with_the_numbers() -> None:
    with pytest.raises(
        CapacityError, match=r"Llama-3.1-70B-Instruct does not fit on 1 x RTX4090: it needs 13\d\.\d GiB"
    ):
        plan(model="Llama-3.1-70B-Instruct")
