"""LoRA adapters in simulated time: what they cost, who may start, and laws that no run may break."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.errors import CapacityError, ConfigError
from simserve.hardware import load_hardware
from simserve.latency.adapters import AdapterProducts
from simserve.metrics.records import FINISHED
from simserve.models import load_model
from simserve.scheduling.adapters import AdapterVllmV1
from simserve.simulation import EngineSetup, SimulationResult, prepare, simulate
from simserve.simulation.features import adapter_replica
from simserve.simulation.features.adapters import AdapterStore
from simserve.workload import AdapterChoice, PrefixUnits, Workload
from simulation.cluster.clusters import Ran, spec
from simulation.cluster.test_laws import workloads

MODEL, HARDWARE = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100")


def run(workload: Workload, **options: Any) -> SimulationResult:
    return simulate(workload, MODEL, HARDWARE, EngineOptions(**options))


def setup(**options: Any) -> EngineSetup:
    return prepare(MODEL, HARDWARE, EngineOptions(**options))


def asking(*adapters: int, gap_s: float = 0.0, outputs: int = 20) -> Workload:
    """One request of 100 tokens for each of ``adapters``, in this order."""
    rows = len(adapters)
    arrivals = gap_s * np.arange(rows)
    return Workload("asking", arrivals, np.full(rows, 100), np.full(rows, outputs), adapters=np.array(adapters))


def test_an_adapter_of_llama_8b_has_the_weights_that_peft_counts() -> None:
    """41.9 million parameters at rank 16 over all seven projections of 32 layers, each of 14 matrices."""
    products = AdapterProducts(MODEL, HARDWARE, dtype="bfloat16", tensor_parallel_size=1, rank=16)
    assert products.slot_bytes == 2 * 41_943_040
    assert products.matrices == 32 * 7 * 2
    halves = AdapterProducts(MODEL, HARDWARE, dtype="bfloat16", tensor_parallel_size=2, rank=16)
    assert products.slot_bytes / 2 < halves.slot_bytes < products.slot_bytes  # one of A and B is whole on each device


def test_slots_take_memory_of_kv_blocks_whether_anybody_uses_them_or_not() -> None:
    plain, one, eight = setup(), setup(enable_lora=True), setup(enable_lora=True, max_loras=8, max_lora_rank=64)
    assert one.adapters is not None
    assert one.weight_bytes - plain.weight_bytes == one.adapters.products.slot_bytes
    assert eight.weight_bytes - plain.weight_bytes == 8 * 4 * one.adapters.products.slot_bytes
    lost = (plain.limits.num_blocks - eight.limits.num_blocks) * plain.block_bytes
    assert lost == pytest.approx(eight.weight_bytes - plain.weight_bytes, abs=plain.block_bytes)
    with pytest.raises(CapacityError, match="does not fit"):
        setup(enable_lora=True, max_loras=1000, max_lora_rank=256)


def test_the_first_use_reads_from_disk_and_others_find_it() -> None:
    done = run(asking(1, 1, 1, gap_s=5.0), enable_lora=True)
    assert [done.figures[name] for name in ("lora_requests", "lora_loads", "lora_disk_loads")] == [3, 1, 1]
    assert done.figures["lora_hit_rate"] == pytest.approx(2 / 3)
    first, second, third = done.records.first_token_s - done.records.arrival_s
    assert first - second == pytest.approx(done.figures["lora_load_s"])
    assert second == pytest.approx(third)
    assert done.columns["adapter"].tolist() == [1, 1, 1]


def test_what_the_host_keeps_need_not_be_read_again() -> None:
    turns = asking(1, 2, 1, 2, gap_s=5.0)
    cold = run(turns, enable_lora=True)
    kept = run(turns, enable_lora=True, max_cpu_loras=2)
    both = run(turns, enable_lora=True, max_loras=2)
    assert [each.figures["lora_loads"] for each in (cold, kept, both)] == [4, 4, 2]
    assert [each.figures["lora_disk_loads"] for each in (cold, kept, both)] == [4, 2, 2]
    assert cold.figures["lora_load_s"] > kept.figures["lora_load_s"] > both.figures["lora_load_s"]


def test_reading_takes_what_is_stated() -> None:
    slow = run(asking(1), enable_lora=True, lora_load_ms=2000.0)
    assert slow.figures["lora_load_s"] == pytest.approx(run(asking(1), enable_lora=True).figures["lora_load_s"] + 1.9)
    disk = run(asking(1), enable_lora=True, lora_disk_bandwidth=0.0838860800)
    assert disk.figures["lora_load_s"] == pytest.approx(1 + 0.1, abs=0.03)


def test_everybody_in_the_step_waits_for_an_adapter() -> None:
    """A decode without one pauses while another request's adapter is loaded, as in vLLM, whose worker does both."""
    workload = asking(0, 7, gap_s=0.2, outputs=40)
    done = run(workload, enable_lora=True)
    assert done.records.gaps.gap_s.max() > done.figures["lora_load_s"] > 0.1
    assert run(asking(0, 0, gap_s=0.2, outputs=40), enable_lora=True).records.gaps.gap_s.max() < 0.1


def test_who_finds_no_slot_is_passed_over_and_keeps_the_place() -> None:
    done = run(asking(1, 2, 1, 0, 2), enable_lora=True).records
    first = done.first_token_s
    assert first[0] == first[2] == first[3]
    assert first[1] == first[4] > done.finish_s[0]
    wide = run(asking(1, 2, 1, 0, 2), enable_lora=True, max_loras=2).records
    assert len(set(wide.first_token_s.tolist())) == 1


def test_a_step_takes_longer_by_products_of_adapters_and_never_less_than_reading_them() -> None:
    slots = setup(enable_lora=True, max_loras=8).adapters
    assert slots is not None
    products = slots.products
    assert products.seconds(0, 0) == 0.0
    one, eight, prompts = products.seconds(32, 1), products.seconds(32, 8), products.seconds(2048, 1)
    assert eight > one >= products.slot_bytes / HARDWARE.bandwidth_bytes_per_s
    assert eight >= 8 * products.slot_bytes / HARDWARE.bandwidth_bytes_per_s
    assert prompts >= 2 * 2048 * products.slot_bytes / 2 / HARDWARE.peak_flops_for("bfloat16")
    slow, fast = (prepare(MODEL, HARDWARE, EngineOptions(enable_lora=True), edge).adapters for edge in (1, -1))
    assert slow is not None
    assert fast is not None
    assert slow.products.seconds(32, 1) > one > fast.products.seconds(32, 1)
    assert "adapters' products, never measured" in setup(enable_lora=True).uncertainty


def test_adapters_share_no_prefix() -> None:
    prompts = PrefixUnits(16, np.tile(np.arange(6), 4), 6 * np.arange(5))
    workload = replace(asking(0, 1, 2, 1, gap_s=5.0), prefix=prompts)
    assert run(workload, enable_lora=True, max_loras=2).records.cached_tokens.tolist() == [0, 0, 0, 96]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_loras": 2}, "--max-loras needs --enable-lora"),
        ({"lora_load_ms": 2.0}, "--lora-load-ms needs --enable-lora"),
        ({"enable_lora": True, "max_loras": 0}, "--max-loras must be at least 1"),
        ({"enable_lora": True, "max_lora_rank": 9}, "--max-lora-rank 9 is none of vLLM's"),
        ({"enable_lora": True, "max_loras": 4, "max_cpu_loras": 3}, "--max-cpu-loras 3 is less than --max-loras 4"),
        ({"enable_lora": True, "lora_load_ms": -1.0}, "--lora-load-ms must be a number of at least 0"),
        ({"enable_lora": True, "lora_disk_bandwidth": 0.0}, "--lora-disk-bandwidth must be more than 0"),
        ({"enable_lora": True, "policy": "sglang"}, "policy sglang cannot have --enable-lora"),
        ({"enable_lora": True, "scheduling_policy": "priority"}, "--scheduling-policy priority cannot have"),
        ({"enable_lora": True, "pipeline_parallel_size": 2}, "--enable-lora and --pipeline-parallel-size cannot"),
        ({"enable_lora": True, "kv_offloading_size": 1.0}, "--enable-lora and --kv-offloading-size cannot"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence_that_names_the_field(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        setup(**options)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_models_and_devices_that_cannot_have_adapters() -> None:
    mixture = load_model("mistralai/Mixtral-8x7B-Instruct-v0.1")
    with pytest.raises(ConfigError, match="has experts, whose adapters cannot be simulated"):
        prepare(mixture, HARDWARE, EngineOptions(enable_lora=True, tensor_parallel_size=2))
    unlinked = HARDWARE.model_copy(update={"host_link": None})
    with pytest.raises(ConfigError, match="has no host_link, over which adapters come"):
        prepare(MODEL, unlinked, EngineOptions(enable_lora=True))
    linked = prepare(MODEL, unlinked, EngineOptions(enable_lora=True, lora_link_bandwidth=0.0838860800)).adapters
    assert linked is not None
    assert linked.copy_s == pytest.approx(1.0, abs=0.01)
    with pytest.raises(ConfigError, match="ask for LoRA adapters: add --enable-lora"):
        run(asking(1))


def test_each_tier_forgets_what_was_used_least_recently() -> None:
    slots = setup(enable_lora=True, max_loras=2, max_cpu_loras=3).adapters
    assert slots is not None
    store = AdapterStore(slots)
    assert store.use([1, 2]) == ([1, 2], [1, 2])
    assert store.use([1]) == ([], [])
    assert store.use([3]) == ([3], [3])  # 2 leaves the device, and stays on the host
    assert store.use([2, 3]) == ([], [2])
    assert store.use([4]) == ([4], [4])  # and 1 leaves the host
    assert list(store.on_host) == [2, 3, 4]
    assert store.use([1, 2]) == ([1], [1, 2])
    assert set(store.on_device) <= set(store.on_host)


EXAMPLES = settings(max_examples=40, deadline=None)

ENGINES = st.fixed_dictionaries(
    {
        "num_gpu_blocks": st.integers(48, 90),
        "max_num_seqs": st.just(16),
        "max_num_batched_tokens": st.sampled_from([16, 64, 256]),
        "async_scheduling": st.booleans(),
        "enable_prefix_caching": st.booleans(),
        "front_end": st.sampled_from(["none", "vllm-v1"]),
    }
)


@EXAMPLES
@given(workloads(), ENGINES, st.integers(1, 3), st.integers(0, 9))
def test_every_token_comes_once_and_nothing_is_left_behind(
    workload: Workload, options: dict[str, Any], max_loras: int, seed: int
) -> None:
    choice = AdapterChoice(5, share=0.8, zipf=0.5)
    workload = replace(workload, adapters=choice.draw(seed, len(workload)))
    ran = Ran(workload, spec(), EngineOptions(enable_lora=True, max_loras=max_loras, **options))
    records, figures = ran.records, ran.result.figures
    done = records.status == FINISHED
    assert ran.source.ends == dict.fromkeys(range(len(workload)), 1)
    fits = workload.input_tokens + workload.output_tokens < 44 * 16
    assert np.all(done[fits])
    assert np.array_equal(records.output_tokens[done & fits], workload.output_tokens[done & fits])
    assert int(records.gaps.count.sum()) == int((records.output_tokens[done] - 1).sum())
    (member,) = ran.cluster.members
    scheduler = member.scheduler
    assert isinstance(scheduler, AdapterVllmV1)
    assert scheduler.blocks.used_blocks == 0
    assert not scheduler.has_requests
    assert not scheduler.running_adapters
    assert not scheduler.batches
    assert not scheduler._adapter_decodes.by_adapter
    assert len(member.replica.adapters.on_device) <= max_loras
    assert figures["lora_requests"] == int((workload.adapters[done] > 0).sum())
    assert figures["lora_disk_loads"] <= figures["lora_loads"]
    assert figures["lora_device_hits"] <= figures["lora_requests"]


@EXAMPLES
@given(workloads(), ENGINES)
def test_an_engine_that_nobody_asks_for_adapters_is_a_plain_one(workload: Workload, options: dict[str, Any]) -> None:
    plain, able = run(workload, **options), run(workload, enable_lora=True, max_loras=3, **options)
    assert plain.totals == able.totals
    for name in ("scheduled_s", "first_token_s", "finish_s", "cached_tokens", "preemptions"):
        assert np.array_equal(getattr(plain.records, name), getattr(able.records, name), equal_nan=True)


@EXAMPLES
@given(workloads(), ENGINES, st.integers(1, 3))
def test_the_same_again_gives_the_same_again(workload: Workload, options: dict[str, Any], max_loras: int) -> None:
    workload = replace(workload, adapters=AdapterChoice(4).draw(1, len(workload)))
    first, second = (run(workload, enable_lora=True, max_loras=max_loras, **options) for _ in range(2))
    assert first.totals == second.totals
    assert first.figures == second.figures
    assert np.array_equal(first.records.finish_s, second.records.finish_s, equal_nan=True)


@EXAMPLES
@given(workloads(), ENGINES, st.integers(1, 3))
def test_no_step_has_more_adapters_than_slots(workload: Workload, options: dict[str, Any], max_loras: int) -> None:
    used: list[int] = []

    class Spy(AdapterStore):
        def use(self, adapters: Any) -> Any:
            used.append(len(set(adapters)))
            return super().use(adapters)

    workload = replace(workload, adapters=AdapterChoice(6).draw(2, len(workload)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter_replica, "AdapterStore", Spy)
        run(workload, enable_lora=True, max_loras=max_loras, **options)
    assert max(used, default=0) <= max_loras
