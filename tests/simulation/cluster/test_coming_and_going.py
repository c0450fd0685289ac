"""Replicas that fail, come back, start and drain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simserve.metrics.records import FAILED, FINISHED
from simserve.simulation.cluster import Defaults, simulate_cluster
from simserve.workload import Workload, synthetic_workload
from simulation.cluster.clusters import HARDWARE, MODEL, OPTIONS, Ran, spec

LONG = Workload("long", np.zeros(4), np.full(4, 100), np.full(4, 300))


def failing(down_s: float | None, **fields: Any) -> Any:
    failures = [{"group": "all", "replica": 0, "at_s": 1.0, "down_s": down_s}]
    return spec(**{"groups": [{"name": "all", "replicas": 2}], "failures": failures, **fields})


def test_requests_of_a_dead_replica_go_on_elsewhere_with_the_tokens_they_have() -> None:
    whole, broken = Ran(LONG, spec(groups=[{"name": "all", "replicas": 2}])).result, Ran(LONG, failing(None)).result
    assert np.all(broken.records.status == FINISHED)
    assert broken.places.member.tolist() == [1, 1, 1, 1]
    assert sorted(broken.places.retries.tolist()) == [0, 0, 1, 1]
    moved = broken.places.retries == 1
    assert np.array_equal(broken.records.first_token_s[moved], whole.records.first_token_s[moved])
    assert np.all(broken.records.finish_s[moved] > whole.records.finish_s[moved])
    assert broken.moved_tokens > 50
    assert broken.members[0].failures == 1
    assert broken.members[0].alive_s == pytest.approx(1.0)


def test_without_a_retry_they_fail_and_keep_what_they_got() -> None:
    result = Ran(LONG, failing(None, retry="never")).result
    failed = result.records.status == FAILED
    assert failed.sum() == 2
    assert np.all(result.records.output_tokens[failed] > 20)
    assert np.all(result.records.output_tokens[failed] < 300)


def test_when_the_last_replica_is_gone_for_ever_everything_fails() -> None:
    late = Workload("late", np.array([0.0, 5.0]), np.full(2, 10), np.full(2, 300))
    result = Ran(late, failing(None, groups=[{"name": "all"}])).result
    assert result.records.status.tolist() == [FAILED, FAILED]


def test_a_replica_that_comes_back_serves_again_with_an_empty_cache() -> None:
    workload = Workload("later", np.array([0.0, 1.5]), np.full(2, 10), np.full(2, 300))
    result = Ran(workload, failing(2.0, groups=[{"name": "all"}])).result
    assert np.all(result.records.status == FINISHED)
    assert result.records.scheduled_s[1] == pytest.approx(3.0)


def test_an_autoscaler_brings_replicas_after_a_cold_start_and_drains_them_later() -> None:
    burst = synthetic_workload(300, 20.0, 100, 100, seed=0)
    scaler = {
        "group": "all", "max_replicas": 4, "target": 10, "interval_s": 1.0, "scale_down_delay_s": 3.0,
        "startup_s": 2.0, "load_bandwidth_gb_per_s": 8.0,
    }  # fmt: skip
    cluster = spec(autoscalers=[scaler])
    result = simulate_cluster(burst, cluster, Defaults(MODEL, HARDWARE, OPTIONS))
    assert np.all(result.records.status == FINISHED)
    first = next(decision for decision in result.decisions if decision.wanted > 1)
    weights_s = MODEL.weight_bytes / 8e9
    used = [member for member in result.members if member.finished]
    assert len(used) > 1
    started = result.records.scheduled_s[result.places.member == 1].min()
    assert started >= first.time_s + weights_s + 2.0
    assert result.members[1].alive_s < result.members[0].alive_s
    assert max(decision.replicas for decision in result.decisions) > 2


def test_those_that_start_together_share_the_link_that_brings_weights() -> None:
    burst = synthetic_workload(200, float("inf"), 100, 300, seed=0)
    scaler = {"group": "all", "max_replicas": 3, "target": 1, "interval_s": 1.0, "startup_s": 0.0}
    ran = Ran(
        burst, spec(autoscalers=[{**scaler, "load_bandwidth_gb_per_s": 16.0}], router={"requests_per_replica": 4})
    )
    weights_s = MODEL.weight_bytes / 16e9
    starts = [ran.records.scheduled_s[ran.result.places.member == index].min() for index in (1, 2)]
    assert starts == pytest.approx([1.0 + weights_s, 1.0 + 2 * weights_s], abs=0.05)


@pytest.mark.parametrize(("metric", "target"), [("utilization", 0.5), ("ttft", 0.2), ("queue", 5)])
def test_every_metric_scales_up_under_load(metric: str, target: float) -> None:
    scaler = {
        "group": "all", "max_replicas": 6, "metric": metric, "target": target, "interval_s": 1.0,
        "scale_down_delay_s": 5.0, "startup_s": 0.5, "load_bandwidth_gb_per_s": 50.0,
    }  # fmt: skip
    result = Ran(synthetic_workload(200, 20.0, 100, 60, seed=1), spec(autoscalers=[scaler])).result
    assert max(decision.replicas for decision in result.decisions) > 1
