"""Who gets a request: each router at work, what stale loads do, and the gateway's queue and limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.metrics.latency import ttft_s
from simserve.metrics.records import FINISHED, THROTTLED
from simserve.simulation import Conversations
from simserve.simulation.cluster import Defaults, router_named, simulate_cluster
from simserve.workload import PrefixUnits, SteadyArrivals, Workload, draw_sessions, parse_length, synthetic_workload
from simserve.workload.think_time import parse_think_time
from simulation.cluster.clusters import HARDWARE, MODEL, Ran, spec

ONE_AT_A_TIME = EngineOptions(max_num_seqs=1)
TWO: dict[str, Any] = {"groups": [{"name": "all", "replicas": 2}]}


def requests(*rows: tuple[float, int, int]) -> Workload:
    """(arrival in s, tokens of the prompt, of the answer)."""
    arrival, inputs, outputs = zip(*rows, strict=True)
    return Workload("rows", np.array(arrival), np.array(inputs), np.array(outputs))


def members(workload: Workload, policy: str, groups: dict[str, Any] = TWO, **router: Any) -> list[int]:
    """The member that each request of ``workload`` was sent to."""
    return Ran(workload, spec(**groups, router={"policy": policy, **router})).result.places.member.tolist()


def test_round_robin_takes_turns() -> None:
    assert members(requests(*[(second, 10, 5) for second in range(5)]), "round-robin") == [0, 1, 0, 1, 0]


def test_least_requests_avoids_the_one_that_still_works() -> None:
    long_one = members(requests((0.0, 10, 500), *[(second, 10, 5) for second in (0.1, 0.5, 1.0)]), "least-requests")
    assert long_one[1:] == [1 - long_one[0]] * 3


def test_least_tokens_counts_tokens_and_not_requests() -> None:
    chosen = members(requests((0.0, 10, 500), (0.0, 10, 10), (0.0, 10, 10), (0.0, 10, 10)), "least-tokens")
    assert chosen[1:] == [1 - chosen[0]] * 3


def test_a_router_with_stale_loads_sends_a_burst_to_the_same_replica() -> None:
    burst = requests((0.0, 10, 500), *[(0.06 + 0.001 * index, 10, 100) for index in range(8)])
    fresh = members(burst, "least-requests")
    stale = members(burst, "least-requests", staleness_s=0.05)
    assert sum(member != fresh[0] for member in fresh[1:]) < 8
    assert stale[1:] == [1 - stale[0]] * 8


def test_prefix_aware_goes_where_the_prompt_is_cached() -> None:
    units = PrefixUnits(16, np.array([1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]), np.array([0, 3, 6, 9, 12]))
    workload = Workload("two families", np.array([0.0, 0.0, 5.0, 5.0]), np.full(4, 50), np.full(4, 5), units)
    result = Ran(workload, spec(**TWO, router={"policy": "prefix-aware"})).result
    first, second = result.places.member[:2]
    assert first != second
    assert result.places.member[2:].tolist() == [first, second]
    assert result.records.cached_tokens.tolist() == [0, 0, 48, 48]


def test_a_mix_can_keep_adapters_apart() -> None:
    """Two adapters in turns: by the fewest requests each replica has both, by adapters each has its own."""
    turns = np.array([1, 2, 2, 1] * 10)
    asking = Workload("turns", 0.05 * np.arange(40), np.full(40, 50), np.full(40, 60), adapters=turns)
    able = EngineOptions(enable_lora=True)
    loads = {}
    for policy in ({"policy": "least-requests"}, {"policy": "mix", "options": {"adapter": 5.0}}):
        done = simulate_cluster(asking, spec(**TWO, router=policy), Defaults(MODEL, HARDWARE, able))
        loads[policy["policy"]] = done.figures["lora_loads"]
        if policy["policy"] == "mix":
            pairs = set(zip(turns.tolist(), done.places.member.tolist(), strict=True))
            assert len(pairs) == 2
    assert loads["mix"] == 2 < loads["least-requests"]


def test_requests_for_adapters_need_engines_that_have_some() -> None:
    asking = Workload("asking", np.zeros(1), np.array([10]), np.array([5]), adapters=np.array([1]))
    groups = [{"name": "able", "engine": {"enable_lora": True}}, {"name": "plain"}]
    with pytest.raises(ConfigError, match="add --enable-lora to every engine"):
        simulate_cluster(asking, spec(groups=groups), Defaults(MODEL, HARDWARE))


@pytest.mark.parametrize("policy", ["session-affinity", "prefix-aware", "mix"])
def test_a_conversation_stays_where_it_began(policy: str) -> None:
    length = parse_length("64", "--input-len")
    sessions = draw_sessions(
        20,
        SteadyArrivals(2.0, 1.0),
        parse_length("4", "--turns"),
        length,
        length,
        parse_think_time("0.2"),
        0,
        unit_tokens=16,
    )
    options = {"options": {"prefix": 5.0}} if policy == "mix" else {}
    cluster = spec(groups=[{"name": "all", "replicas": 4}], router={"policy": policy, **options})
    done = simulate_cluster(Conversations(sessions), cluster, Defaults(MODEL, HARDWARE))
    lost = simulate_cluster(
        Conversations(sessions), spec(groups=[{"name": "all", "replicas": 4}]), Defaults(MODEL, HARDWARE)
    )
    assert len(set(done.places.member.tolist())) > 1
    assert done.totals.cached_tokens > 1.5 * lost.totals.cached_tokens


def test_weights_decide_how_many_each_group_gets() -> None:
    groups = [{"name": "heavy", "weight": 3.0}, {"name": "light", "replicas": 1}]
    chosen = members(synthetic_workload(400, 50.0, 8, 2, seed=0), "weighted", {"groups": groups})
    assert 0.7 < chosen.count(0) / 400 < 0.8


def test_an_own_router_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from simserve.simulation.cluster import Router\n"
        "class Last(Router):\n"
        "    def choose(self, request, pool):\n"
        "        return pool.members[-1]\n"
    )
    assert members(requests((0.0, 10, 5), (0.0, 10, 5)), f"{tmp_path}/mine.py:Last") == [1, 1]
    with pytest.raises(ConfigError, match="has no class First that derives"):
        router_named(f"{tmp_path}/mine.py:First")


def test_a_request_that_only_some_can_hold_goes_to_one_of_them() -> None:
    groups = {"groups": [{"name": "small", "engine": {"num_gpu_blocks": 10}}, {"name": "large"}]}
    assert members(requests((0.0, 200, 5), (1.0, 200, 5), (2.0, 200, 5)), "round-robin", groups) == [1, 1, 1]


def test_what_comes_to_a_full_queue_is_refused() -> None:
    limits = {"requests_per_replica": 1, "max_waiting_requests": 2}
    result = Ran(requests(*[(0.0, 10, 50)] * 5), spec(router=limits)).result
    assert result.records.status.tolist() == [FINISHED] * 3 + [THROTTLED] * 2


@pytest.mark.parametrize("limit", [{"max_requests": 3}, {"max_tokens": 180}])
def test_what_the_whole_cluster_has_no_room_for_is_refused(limit: dict[str, int]) -> None:
    result = Ran(requests(*[(0.0, 10, 50)] * 5, (60.0, 10, 50)), spec(router=limit)).result
    assert result.records.status.tolist() == [FINISHED] * 3 + [THROTTLED] * 2 + [FINISHED]


def finish_order(order: str, tenants: list[dict[str, Any]], workload: Workload) -> tuple[list[int], list[int]]:
    """(tenants in order of finishing, tenants in order of coming)."""
    result = Ran(workload, spec(router={"order": order, "requests_per_replica": 1}, tenants=tenants)).result
    by_finish = np.argsort(result.records.finish_s, kind="stable")
    return result.places.tenant[by_finish].tolist(), result.places.tenant.tolist()


def test_a_higher_priority_and_a_nearer_deadline_go_first() -> None:
    crowd = requests(*[(0.0, 10, 20)] * 40)
    urgent = [{"name": "batch", "priority": 5}, {"name": "chat", "priority": 1}]
    finished, came = finish_order("priority", urgent, crowd)
    assert finished == [came[0], *sorted(came[1:], reverse=True)]
    soon = [{"name": "batch"}, {"name": "chat", "ttft_slo_s": 1.0}]
    finished, came = finish_order("deadline", soon, crowd)
    assert finished == [came[0], *sorted(came[1:], reverse=True)]


def test_fair_queueing_gives_each_tenant_its_share_while_both_wait() -> None:
    """One tenant sends nine times as much as the other; served are three of the other's for each of its own."""
    tenants = [{"name": "greedy", "traffic": 9.0}, {"name": "modest", "traffic": 1.0, "share": 3.0}]
    finished, came = finish_order("fair", tenants, requests(*[(0.0, 10, 20)] * 200))
    modest = came.count(1)
    while_both_wait = finished[: modest * 4 // 3]
    assert while_both_wait.count(1) >= modest - 2


def test_one_queue_before_all_is_shorter_than_one_before_each() -> None:
    workload = synthetic_workload(2000, 14.0, 64, parse_length("uniform:1:40", "--output-len"), seed=3)
    pooled, split = (
        simulate_cluster(
            workload,
            spec(groups=[{"name": "all", "replicas": 4}], router=router),
            Defaults(MODEL, HARDWARE, ONE_AT_A_TIME),
        )
        for router in ({"requests_per_replica": 1}, {"policy": "random"})
    )
    assert ttft_s(pooled.records).mean() < 0.7 * ttft_s(split.records).mean()
