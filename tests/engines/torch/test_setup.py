"""Whether an engine can be had at all is said before it starts, with the numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch", reason="the torch engine needs pip install simserve[torch]")

from simserve.config import EngineOptions  # noqa: E402
from simserve.engines.torch import load_core, memory  # noqa: E402
from simserve.errors import CapacityError, ConfigError, ModelError, SimServeError  # noqa: E402
from simserve.models import load_model  # noqa: E402

if TYPE_CHECKING:
    from engines.torch.conftest import TinyModel

GIB = 2**30


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"async_scheduling": True}, "--async-scheduling"),
        ({"tensor_parallel_size": 2}, "--tensor-parallel-size"),
        ({"max_num_seqs": 100, "max_num_batched_tokens": 50}, "every running request needs one token"),
        ({"max_model_len": 600}, "512 tokens that"),
        ({"max_model_len": 500, "num_gpu_blocks": 10}, "144 tokens that the KV cache holds"),
        ({"policy": "sarathi", "enable_prefix_caching": True}, "policy sarathi"),
    ],
)
def test_options_that_cannot_be_honoured(
    options: dict[str, Any], complaint: str, tiny: Callable[[str], TinyModel]
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_core(tiny("llama-2").folder, options=EngineOptions(**options))


@pytest.mark.parametrize(
    ("device", "dtype", "complaint"),
    [("gpu", None, "'gpu' is not known"), ("meta", None, "not on meta"), ("cpu", "fp8", "dtype fp8")],
)
def test_devices_and_dtypes_that_it_does_not_have(
    device: str, dtype: str | None, complaint: str, tiny: Callable[[str], TinyModel]
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_core(tiny("llama-2").folder, device, dtype)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_no_cuda(tiny: Callable[[str], TinyModel]) -> None:
    with pytest.raises(ConfigError, match="finds no CUDA device"):
        load_core(tiny("llama-2").folder, "cuda")


def test_a_model_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 12 * GIB)
    with pytest.raises(
        CapacityError, match=r"needs 15.0 GiB for its weights in bfloat16, and 12.0 GiB are free on cpu"
    ):
        load_core("meta-llama/Llama-3.1-8B", random_weights=True)


def test_more_blocks_than_there_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1 * GIB)
    with pytest.raises(CapacityError, match=r"GiB of cpu for KV, and 1000000 blocks of 16 tokens take .* GiB"):
        load_core("simserve/tiny-llama", random_weights=True, options=EngineOptions(num_gpu_blocks=1_000_000))


def test_memory_that_the_system_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**60)
    with pytest.raises(CapacityError, match=r"KV blocks of simserve/tiny-llama take .* GiB, which cpu does not give"):
        load_core("simserve/tiny-llama", random_weights=True, options=EngineOptions(num_gpu_blocks=2**38))


def test_blocks_are_planned_for_half_of_the_free_memory_and_no_more_than_is_useful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = load_model("simserve/tiny-llama")
    plan = memory.plan_pages
    cpu, options = torch.device("cpu"), EngineOptions()
    monkeypatch.setattr(memory, "free_bytes", lambda device: GIB // 8)
    few = plan(spec, "float32", cpu, options, seqs=64, step_tokens=64)
    page_bytes = spec.kv_bytes_per_token("float32") * 16
    assert few * page_bytes < GIB // 16
    more = plan(spec, "float32", cpu, replace(options, gpu_memory_utilization=0.9), seqs=64, step_tokens=64)
    assert few < more < 2 * few
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**50)
    assert plan(spec, "float32", cpu, options, seqs=64, step_tokens=64) == 1 + 64 * 2048 // 16


def test_the_system_says_how_much_is_free() -> None:
    assert 2**20 < memory.free_bytes(torch.device("cpu")) < 2**50


def test_shapes_without_weights_need_random_ones() -> None:
    with pytest.raises(ModelError, match="or ask for random ones"):
        load_core("simserve/tiny-llama")
    assert load_core("simserve/tiny-llama", random_weights=True).runner.model.spec.vocab_size == 2048


def test_errors_are_simserves_own() -> None:
    assert all(issubclass(kind, SimServeError) for kind in (CapacityError, ConfigError, ModelError))
