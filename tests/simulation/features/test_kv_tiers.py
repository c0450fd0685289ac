"""KV tiers in simulated time: what is kept where, how long it takes to come back, and laws that no run may break."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.hardware import load_hardware
from simserve.metrics.records import FINISHED
from simserve.models import load_model
from simserve.simulation import SimulationResult, prepare, simulate
from simserve.simulation.features.kv_tiers import GIB, KVTiers, TierSizes, tier_sizes
from simserve.simulation.features.lane import Lane
from simserve.workload import PrefixUnits, Workload
from simulation.cluster.clusters import Ran, spec
from simulation.cluster.test_laws import assert_same, workloads

MODEL, HARDWARE = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100")
BLOCK_BYTES = 16 * MODEL.kv_bytes_per_token("bfloat16")
UNIT = 16


def sizes(host_blocks: int, disk_blocks: int = 0, **more: float) -> TierSizes:
    """Blocks of one byte; a second for each block over any link, and no latency, unless said otherwise."""
    speeds = {"host_bytes_per_s": 1.0, "host_latency_s": 0.0, "disk_bytes_per_s": 1.0, "disk_latency_s": 0.0}
    return TierSizes(host_blocks, disk_blocks, 1, 1, **(speeds | more))


def units(*keys: int) -> list[tuple[int, int]]:
    return [(key, 1) for key in keys]


def test_transfers_wait_for_each_other() -> None:
    lane = Lane(10.0, 0.5)
    assert [lane.send(20, 1.0), lane.send(10, 1.0), lane.send(10, 9.0)] == [3.5, 4.5, 10.5]
    assert (lane.busy_s, lane.sent_bytes) == (4.0, 40)


def test_a_unit_is_there_when_it_has_been_copied() -> None:
    tiers = KVTiers(sizes(4))
    assert tiers.store(units(1, 2), begin_s=10.0) == 2
    for now_s, found in ((11.9, 0), (12.0, 2)):
        tiers.now_s = now_s
        assert tiers.find(units(1, 2, 3)) == found
    assert tiers.store(units(1, 2, 3), begin_s=12.0) == 1


def test_the_least_recently_used_goes_first_and_of_one_prompt_its_end() -> None:
    tiers = KVTiers(sizes(3))
    tiers.store(units(1, 2, 3), 0.0)
    tiers.now_s = 100.0
    tiers.store(units(4), 100.0)
    assert [key for key in (1, 2, 3) if units(key)[0] in tiers.host] == [1, 2]
    assert tiers.find(units(1)) == 1
    tiers.store(units(5), 100.0)
    assert [key for key in (1, 2, 4, 5) if units(key)[0] in tiers.host] == [1, 4, 5]


def test_what_the_memory_forgets_comes_from_disk_by_way_of_the_memory() -> None:
    tiers = KVTiers(sizes(2, 2, disk_bytes_per_s=0.5))
    tiers.store(units(1, 2), 0.0)
    tiers.store(units(3), 5.0)  # 2 goes to disk, two seconds
    tiers.now_s = 7.0
    assert tiers.find(units(1, 2)) == 2
    done_s, host_blocks, disk_blocks = tiers.fetch(units(1, 2), begin_s=7.0)
    # 1 comes at 8; 2 is read until 9 (the disk is free) and comes up after that.
    assert (done_s, host_blocks, disk_blocks) == (10.0, 1, 1)
    assert tiers.host.used_blocks == 2


def prompts(*rows: list[int], every_s: float = 10.0) -> Workload:
    """A prompt of each row of units and one token more, ``every_s`` apart, each answered with two tokens."""
    offsets = np.cumsum([0, *map(len, rows)])
    ids = np.array([unit for row in rows for unit in row], dtype=np.int64)
    inputs = np.array([len(row) * UNIT + 1 for row in rows])
    arrivals = np.arange(len(rows)) * every_s
    return Workload("by hand", arrivals, inputs, np.full(len(rows), 2), PrefixUnits(UNIT, ids, offsets))


def run(workload: Workload, **options: Any) -> SimulationResult:
    return simulate(workload, MODEL, HARDWARE, EngineOptions(**options))


def test_a_forgotten_prompt_is_fetched_in_the_time_of_the_link() -> None:
    """A's 60 blocks are forgotten when B's come, and come back for the third request, which is A again."""
    a, b = list(range(60)), list(range(100, 160))
    options: dict[str, Any] = {"num_gpu_blocks": 62, "kv_offloading_bandwidth": 1.0, "kv_offloading_latency_us": 1000.0}
    done = run(prompts(a, b, a), kv_offloading_size=2.0, **options)
    assert done.records.cached_tokens.tolist() == [0, 0, 60 * UNIT]
    assert done.columns["kv_host_tokens"].tolist() == [0, 0, 60 * UNIT]
    waited_s = done.records.scheduled_s - done.records.arrival_s
    assert waited_s[2] == pytest.approx(60 * BLOCK_BYTES / 1e9 + 0.001)
    assert done.figures == {
        "kv_host_tokens": 960, "kv_disk_tokens": 0, "kv_stored_tokens": 1920, "kv_fetches": 1
    }  # fmt: skip


def test_a_small_memory_leaves_it_to_the_disk() -> None:
    a, b = list(range(60)), list(range(100, 160))
    options: dict[str, Any] = {"num_gpu_blocks": 62, "kv_offloading_size": 65 * BLOCK_BYTES / GIB}
    without, with_disk = (run(prompts(a, b, a), **options, **more) for more in ({}, {"kv_disk_size": 10.0}))
    assert without.figures["kv_host_tokens"] == 5 * UNIT
    assert (with_disk.figures["kv_host_tokens"], with_disk.figures["kv_disk_tokens"]) == (5 * UNIT, 55 * UNIT)
    assert with_disk.records.first_token_s[2] > with_disk.records.arrival_s[2] + 55 * BLOCK_BYTES / 6.5e9


def test_each_device_has_its_own_link_and_all_share_the_disk() -> None:
    options = EngineOptions(kv_offloading_size=1.0, kv_disk_size=1.0, tensor_parallel_size=2)
    made = tier_sizes(options, HARDWARE, BLOCK_BYTES // 2)
    assert made is not None
    assert (made.device_block_bytes, made.block_bytes, made.host_blocks) == (BLOCK_BYTES // 2, BLOCK_BYTES, 512)
    assert made.host_bytes_per_s == pytest.approx(0.8 * 32e9)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kv_offloading_size": 0.0}, "--kv-offloading-size must be more than 0, not 0.0"),
        ({"kv_offloading_size": 1.0, "kv_disk_size": -1.0}, "--kv-disk-size must be more than 0"),
        ({"kv_disk_size": 1.0}, "--kv-disk-size needs --kv-offloading-size"),
        ({"kv_offloading_bandwidth": 1.0}, "--kv-offloading-bandwidth needs --kv-offloading-size"),
        ({"kv_offloading_size": 1.0, "kv_disk_latency_us": 1.0}, "--kv-disk-latency-us needs --kv-disk-size"),
        ({"kv_offloading_size": 1.0, "kv_offloading_latency_us": -1.0}, "--kv-offloading-latency-us must be a number"),
        ({"kv_offloading_size": 1e-6}, "--kv-offloading-size 1e-06 GiB holds no KV block"),
        ({"kv_offloading_size": 1.0, "enable_prefix_caching": False}, "--kv-offloading-size needs the prefix cache"),
        ({"kv_offloading_size": 1.0, "policy": "sglang"}, "policy sglang cannot have --kv-offloading-size"),
    ],
)
def test_what_contradicts_itself_is_refused_in_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
        prepare(MODEL, HARDWARE, EngineOptions(**options))


def test_a_device_without_a_known_link_wants_to_be_told() -> None:
    unknown = HARDWARE.model_copy(update={"host_link": None})
    with pytest.raises(ConfigError, match="has no host_link: say how fast it is with --kv-offloading-bandwidth"):
        prepare(MODEL, unknown, EngineOptions(kv_offloading_size=1.0))
    assert prepare(MODEL, unknown, EngineOptions(kv_offloading_size=1.0, kv_offloading_bandwidth=20.0)).tiers


def test_who_holds_twins_of_what_others_computed_does_not_stand_in_its_own_way() -> None:
    """The last two fetch the same prefix; the first of them computes it anew, and the other holds it a second time."""
    shared, other, small = list(range(100, 132)), list(range(200, 230)), list(range(27))
    rows = [
        (0.0, 512, 1, shared), (0.0, 62, 45, small[:3]), (0.3, 384, 46, shared[:24]), (0.3, 488, 28, other),
        (0.3, 433, 34, small), (0.3, 1, 1, []), (0.3, 1, 1, []), (0.3, 1, 1, []), (0.3, 512, 1, shared),
        (0.3, 513, 1, shared),
    ]  # fmt: skip
    arrivals, inputs, outputs = (np.array([row[at] for row in rows]) for at in range(3))
    ids = np.array([unit for *_, units in rows for unit in units], dtype=np.int64)
    offsets = np.cumsum([0, *(len(units) for *_, units in rows)])
    workload = Workload("by hand", arrivals, inputs, outputs, PrefixUnits(UNIT, ids, offsets))
    done = run(
        workload,
        num_gpu_blocks=65,
        max_num_seqs=16,
        max_num_batched_tokens=64,
        async_scheduling=False,
        reserve_full_prompt=False,
        kv_offloading_size=100 * BLOCK_BYTES / GIB,
        kv_offloading_bandwidth=0.05,
    )
    assert (done.records.status == FINISHED).sum() == len(rows)


EXAMPLES = settings(max_examples=40, deadline=None)

ENGINES = st.fixed_dictionaries(
    {
        "num_gpu_blocks": st.integers(48, 90),
        "max_num_seqs": st.just(16),
        "max_num_batched_tokens": st.sampled_from([64, 256]),
        "async_scheduling": st.booleans(),
        "reserve_full_prompt": st.booleans(),
        "scheduling_policy": st.sampled_from(["fcfs", "priority"]),
        "kv_offloading_size": st.sampled_from([8 * BLOCK_BYTES / GIB, 100 * BLOCK_BYTES / GIB, 4.0]),
        "kv_offloading_bandwidth": st.sampled_from([0.05, 1.0, 25.0]),
        "kv_disk_size": st.sampled_from([None, 60 * BLOCK_BYTES / GIB, 50.0]),
        "front_end": st.sampled_from(["none", "vllm-v1"]),
    }
)


@EXAMPLES
@given(workloads(), ENGINES)
def test_no_token_is_lost_or_invented(workload: Workload, options: dict[str, Any]) -> None:
    done = run(workload, **options)
    records, totals = done.records, done.totals
    finished = records.status == FINISHED
    fits = workload.input_tokens + workload.output_tokens < 44 * 16
    assert np.all(finished[fits])
    assert np.array_equal(records.output_tokens[finished & fits], workload.output_tokens[finished & fits])
    prompts = int(records.input_tokens[finished].sum())
    if not totals.preemptions:
        assert totals.computed_prefill_tokens == prompts - totals.cached_tokens
    for name in ("kv_host_tokens", "kv_disk_tokens"):
        assert done.figures[name] == sum(done.columns.get(name, []))
    assert np.all(records.scheduled_s[finished] >= records.arrival_s[finished])


@EXAMPLES
@given(workloads(), ENGINES)
def test_nothing_is_held_when_all_is_done_and_no_link_carries_more_than_it_can(
    workload: Workload, options: dict[str, Any]
) -> None:
    ran = Ran(workload, spec(), EngineOptions(**options))
    (member,) = ran.cluster.members
    assert ran.source.ends == dict.fromkeys(range(len(workload)), 1)
    assert member.scheduler.blocks.used_blocks == 0
    assert member.scheduler.fetching_requests == 0  # type: ignore[attr-defined]
    tiers: KVTiers = member.replica.tiers  # type: ignore[attr-defined]
    assert 0 <= tiers.host.used_blocks <= tiers.sizes.host_blocks
    assert 0 <= tiers.disk.used_blocks <= tiers.sizes.disk_blocks
    fetched = ran.result.figures["kv_host_tokens"] + ran.result.figures["kv_disk_tokens"]
    assert tiers.up.sent_bytes == fetched // 16 * tiers.sizes.device_block_bytes
    assert tiers.up.busy_s <= float(np.nanmax(ran.records.finish_s, initial=0.0)) + 1e-9
    assert tiers.up.busy_s == pytest.approx(tiers.up.sent_bytes / tiers.sizes.host_bytes_per_s)


@EXAMPLES
@given(workloads(), ENGINES)
def test_tiers_that_nobody_needs_change_nothing(workload: Workload, options: dict[str, Any]) -> None:
    """Where no two prompts begin alike, an engine with tiers is an engine without, to the bit."""
    alone = Workload(workload.name, workload.arrival_s, workload.input_tokens, workload.output_tokens)
    plain = {name: value for name, value in options.items() if not name.startswith("kv_")}
    with_tiers, without = run(alone, **options), run(alone, **plain)
    assert_same(with_tiers.records, without.records)
    assert with_tiers.totals == without.totals


@EXAMPLES
@given(workloads(), ENGINES, st.sampled_from(["elsewhere", "never"]))
def test_every_request_ends_once_where_replicas_fail(workload: Workload, options: dict[str, Any], retry: str) -> None:
    failures = [{"group": "all", "mean_time_between_failures_s": 0.3, "down_s": 0.01}]
    cluster = spec(groups=[{"name": "all", "replicas": 2}], failures=failures, retry=retry)
    ran = Ran(workload, cluster, EngineOptions(**options))
    assert ran.source.ends == dict.fromkeys(range(len(workload)), 1)
    for member in ran.cluster.members:
        assert member.scheduler.blocks.used_blocks == 0
        assert not member.scheduler.has_requests
