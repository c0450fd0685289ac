"""Laws of any cluster, whatever its groups, router, failures and scaling: Hypothesis looks for one that breaks them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.metrics.records import FINISHED, REJECTED, Records
from simserve.scheduling import POLICIES
from simserve.simulation import simulate
from simserve.simulation.cluster import ROUTERS, ClusterSpec
from simserve.workload import PrefixUnits, Workload
from simulation.cluster.clusters import HARDWARE, MODEL, Ran, spec

EXAMPLES = settings(max_examples=60, deadline=None)


@st.composite
def workloads(draw: st.DrawFn, most_input: int = 700) -> Workload:
    """Up to 40 requests within two seconds, some of which begin alike, some too long for any replica here."""
    count = draw(st.integers(1, 40))
    gaps = draw(st.lists(st.sampled_from([0.0, 0.003, 0.04, 0.3]), min_size=count, max_size=count))
    inputs = draw(st.lists(st.integers(1, most_input), min_size=count, max_size=count))
    outputs = draw(st.lists(st.integers(1, 60), min_size=count, max_size=count))
    families = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    units = [
        [family * 1000 + unit for unit in range(tokens // 16)] for family, tokens in zip(families, inputs, strict=True)
    ]
    offsets = np.cumsum([0, *map(len, units)])
    prefix = PrefixUnits(16, np.array([unit for row in units for unit in row], dtype=np.int64), offsets)
    return Workload("any", np.cumsum(gaps), np.array(inputs), np.array(outputs), prefix)


def routers() -> st.SearchStrategy[dict[str, Any]]:
    fixed = {"policy": st.sampled_from(list(ROUTERS)), "staleness_s": st.sampled_from([0.0, 0.01, 0.05])}
    limited = {
        "order": st.sampled_from(["fcfs", "priority", "deadline", "fair"]),
        "requests_per_replica": st.integers(1, 5),
        "max_waiting_requests": st.sampled_from([None, 0, 3]),
        "max_requests": st.sampled_from([None, 20]),
        "max_tokens": st.sampled_from([None, 5000]),
    }
    return st.one_of(st.fixed_dictionaries(fixed), st.fixed_dictionaries({**fixed, **limited}))


@st.composite
def clusters(draw: st.DrawFn) -> ClusterSpec:
    """One or two groups, with tenants, failures and an autoscaler or without."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    roles = draw(st.sampled_from([["mixed"] * 2, ["prefill", "decode"]])) if len(sizes) == 2 else ["mixed"]
    groups: list[dict[str, Any]] = [
        {"name": f"g{number}", "replicas": size, "engine": {"policy": draw(st.sampled_from(sorted(POLICIES)))}}
        for number, size in enumerate(sizes)
    ]
    for group in groups:
        whole = POLICIES[group["engine"]["policy"]].whole_prompts
        group["engine"]["max_num_batched_tokens"] = draw(st.sampled_from([600, 1000] if whole else [64, 256]))
        group["engine"]["num_gpu_blocks"] = draw(st.integers(45, 90))
        if group["engine"]["policy"] == "vllm-v1":
            group["pipeline_parallel_size"] = draw(st.sampled_from([1, 1, 2, 3]))
    for group, role in zip(groups, roles, strict=True):
        group["role"] = role
        if role == "decode":
            group["engine"] |= {"policy": "vllm-v1", "num_gpu_blocks": 90}
    link = {"from": "g0", "to": "g1", "bandwidth_gb_per_s": draw(st.sampled_from([1.0, 100.0])), "latency_s": 0.001}
    links = [{**link, "layerwise": draw(st.booleans())}] if roles[0] == "prefill" else []
    failures: list[dict[str, Any]] = []
    for number, size in enumerate(sizes):
        for _ in range(draw(st.integers(0, 2))):
            down_s = draw(st.sampled_from([None, 0.0, 0.05, 1.0]))
            at = {"replica": draw(st.integers(0, size - 1)), "at_s": draw(st.floats(0.0, 2.0))}
            random = {"mean_time_between_failures_s": draw(st.sampled_from([0.2, 1.0]))}
            failures.append({"group": f"g{number}", "down_s": down_s, **draw(st.sampled_from([at, random]))})
    scaler = {
        "group": "g0", "max_replicas": 4, "metric": draw(st.sampled_from(["queue", "utilization", "ttft"])),
        "target": draw(st.sampled_from([0.1, 0.7])), "interval_s": 0.1, "scale_down_delay_s": 0.2, "startup_s": 0.1,
        "load_bandwidth_gb_per_s": 100,
    }  # fmt: skip
    return spec(
        groups=groups,
        links=links,
        router=draw(routers()),
        tenants=draw(
            st.sampled_from([[], [{"name": "a", "ttft_slo_s": 0.1}, {"name": "b", "share": 3, "priority": -1}]])
        ),
        failures=failures,
        retry=draw(st.sampled_from(["elsewhere", "never"])),
        autoscalers=draw(st.sampled_from([[], [scaler]])),
    )


@EXAMPLES
@given(workloads(), clusters())
def test_every_request_ends_exactly_once_and_leaves_nothing_behind(workload: Workload, cluster: ClusterSpec) -> None:
    ran = Ran(workload, cluster, EngineOptions(max_num_seqs=16))
    records = ran.records
    assert ran.source.ends == dict.fromkeys(range(len(workload)), 1)
    assert len(records) == len(workload)
    assert np.array_equal(records.arrival_s, workload.arrival_s)
    assert np.array_equal(records.input_tokens, workload.input_tokens)
    assert not ran.cluster.gateway.queue
    for member in ran.cluster.members:
        assert not member.held
        assert not member.scheduler.has_requests
        assert member.scheduler.blocks.used_blocks == 0
        assert member.peak_kv_blocks < member.group.setup.limits.num_blocks
    assert ran.cluster.loads.total_requests == ran.cluster.loads.total_tokens == 0
    assert not ran.cluster.loads.requests.any()


@EXAMPLES
@given(workloads(), clusters())
def test_who_finished_has_all_its_tokens_and_times_in_order(workload: Workload, cluster: ClusterSpec) -> None:
    records = Ran(workload, cluster, EngineOptions(max_num_seqs=16)).records
    done = records.status == FINISHED
    assert np.all(records.output_tokens <= workload.output_tokens)
    longest = 44 * 16  # of the smallest replicas, where an answer is cut
    fits = workload.input_tokens + workload.output_tokens < min(longest, 600)
    assert np.array_equal(records.output_tokens[done & fits], workload.output_tokens[done & fits])
    assert np.all(records.arrival_s[done] <= records.scheduled_s[done])
    assert np.all(records.scheduled_s[done] < records.first_token_s[done])
    assert np.all(records.first_token_s[done] <= records.finish_s[done])
    assert int(records.gaps.count.sum()) == int((records.output_tokens[records.output_tokens > 0] - 1).sum())
    assert np.all(np.isnan(records.finish_s[~done]))


@EXAMPLES
@given(
    workloads(most_input=300),
    st.integers(1, 3),
    st.sampled_from([0.05, 0.3]),
    st.sampled_from([False, True]),
    st.sampled_from([1, 3]),
)
def test_work_is_conserved_across_failures(
    workload: Workload, replicas: int, mean_s: float, asynchronous: bool, stages: int
) -> None:
    """What was computed is every prompt once, every answer that moved on as part of a prompt, and what was wasted."""
    failures = [{"group": "all", "mean_time_between_failures_s": mean_s, "down_s": 0.01}]
    cluster = spec(groups=[{"name": "all", "replicas": replicas}], failures=failures, max_retries=1000)
    options = EngineOptions(
        max_num_seqs=16,
        enable_prefix_caching=False,
        async_scheduling=asynchronous and stages == 1,
        pipeline_parallel_size=stages,
    )
    ran = Ran(workload, cluster, options)
    totals = ran.result.totals
    assert np.all(ran.records.status == FINISHED)
    assert totals.preemptions == 0
    wasted = sum(member.wasted_prefill_tokens for member in ran.result.members)
    assert totals.computed_prefill_tokens == int(workload.input_tokens.sum()) + ran.result.moved_tokens + wasted


@EXAMPLES
@given(workloads(), routers(), st.sampled_from(sorted(POLICIES)), st.sampled_from(["none", "vllm-v1"]))
def test_one_replica_behind_any_router_is_an_engine_by_itself(
    workload: Workload, router: dict[str, Any], policy: str, front_end: str
) -> None:
    options = EngineOptions(
        policy=policy, num_gpu_blocks=90, max_num_seqs=16, max_num_batched_tokens=600, front_end=front_end
    )
    unlimited = {key: router[key] for key in ("policy", "staleness_s")}
    alone = simulate(workload, MODEL, HARDWARE, options)
    cluster = Ran(workload, spec(router=unlimited), options).result
    assert_same(alone.records, cluster.records)
    assert alone.totals == cluster.totals
    assert cluster.places.member.tolist() == [-1 if status == REJECTED else 0 for status in alone.records.status]


@EXAMPLES
@given(workloads(), clusters())
def test_the_same_input_gives_the_same_result_to_the_bit(workload: Workload, cluster: ClusterSpec) -> None:
    first, again = (Ran(workload, cluster, EngineOptions(max_num_seqs=16)).result for _ in range(2))
    assert_same(first.records, again.records)
    assert first.totals == again.totals
    assert first.members == again.members


def assert_same(one: Records, other: Records) -> None:
    for field in fields(Records):
        if field.name != "gaps":
            assert getattr(one, field.name).tobytes() == getattr(other, field.name).tobytes(), field.name
    assert one.gaps.gap_s.tobytes() == other.gaps.gap_s.tobytes()
    assert one.gaps.count.tobytes() == other.gaps.count.tobytes()
