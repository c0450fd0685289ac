"""How many KV blocks an engine has, by its version: who counts graphs, and who goes by a share of the memory."""

from __future__ import annotations

from typing import Any

import pytest

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.hardware import load_hardware
from simserve.latency.host import captured_graphs
from simserve.latency.memory import GRAPH_BYTES
from simserve.latency.sglang_memory import default_share
from simserve.models import load_model
from simserve.simulation import EngineSetup, prepare

MIB, GIB = 2**20, 2**30
LLAMA_BLOCK_BYTES = 2 * MIB


def setup(hardware: str = "RTX4090", model: str = "Llama-3.1-8B", **options: Any) -> EngineSetup:
    return prepare(load_model(model), load_hardware(hardware), EngineOptions(**options))


def blocks(hardware: str = "RTX4090", **options: Any) -> int:
    return setup(hardware, **options).limits.num_blocks


def test_an_rtx_4090_with_vllm_0_19_has_the_blocks_that_its_run_reports() -> None:
    assert blocks(engine_preset="vllm-0.19") == pytest.approx(2588, rel=0.03)


def test_vllm_captures_every_size_in_pieces_and_those_of_decodes_whole() -> None:
    """As its start-up log says for 256 and for 1024 sequences: PIECEWISE=51, FULL=35 and FULL=51."""
    assert captured_graphs(256, 2048) == 51 + 35
    assert captured_graphs(1024, 8192) == 51 + 51


def test_graphs_count_from_vllm_0_21_on_unless_none_are_captured() -> None:
    share = {"gpu_memory_utilization": 0.9}
    before, since = blocks(engine_preset="vllm-0.19"), blocks(engine_preset="vllm-0.22", **share)
    assert before - since == pytest.approx(86 * GRAPH_BYTES / LLAMA_BLOCK_BYTES, abs=1)
    assert blocks(engine_preset="vllm-0.22", enforce_eager=True, **share) == before
    assert blocks(engine_preset="vllm-0.22", count_graph_memory=False, **share) == before
    assert blocks(count_graph_memory=True) == since


def test_small_steps_without_graphs_wait_for_their_launches() -> None:
    graphs, eager = (setup("B200", "Llama-3.2-1B-Instruct", enforce_eager=eager).timer for eager in (False, True))
    assert eager.step_s(1, 100, [], 1) > graphs.step_s(1, 100, [], 1)


def test_sglangs_share_by_its_own_arithmetic() -> None:
    """24,081 MiB, of which 512 and 1.5 x 2048 and 2 x 24 and 128 are set aside; 10 GiB at least on large devices."""
    rtx = load_hardware("RTX4090")
    assert rtx.reported_memory_bytes is not None
    total = rtx.reported_memory_bytes / MIB
    assert default_share(rtx, 2048, 1) == round((total - 512 - 3072 - 48 - 128) / total, 3)
    mi300x = load_hardware("MI300X")
    assert default_share(mi300x, 2048, 1) == round(1 - 10240 * MIB / (mi300x.memory_bytes * 0.987), 3)


def test_sglang_leaves_weights_and_kv_cache_that_share() -> None:
    total = load_hardware("RTX4090").reported_memory_bytes
    assert total is not None
    weights = load_model("Llama-3.1-8B").weight_bytes
    kv_bytes = blocks(policy="sglang", gpu_memory_utilization=0.85) * LLAMA_BLOCK_BYTES
    assert kv_bytes == pytest.approx((total - 0.5 * GIB) * 0.85 - weights, abs=LLAMA_BLOCK_BYTES)


@pytest.mark.parametrize(("hardware", "chunk"), [("L4", 2048), ("L40S", 4096), ("A100", 8192), ("MI300X", 16384)])
def test_sglangs_chunks_go_by_the_memory_too(hardware: str, chunk: int) -> None:
    assert setup(hardware, policy="sglang").limits.max_num_batched_tokens == chunk
    assert setup(hardware, engine_preset="sglang-0.5", chunked_prefill_size=1000).options.chunked_prefill_size == 1000


def test_sglang_has_no_use_for_counted_graphs() -> None:
    with pytest.raises(ConfigError, match="policy sglang sets memory for graphs aside in any case"):
        blocks(policy="sglang", count_graph_memory=True)
