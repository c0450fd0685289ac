"""Energy and money of a cluster: by replica, in all, and for devices that only wait."""

from __future__ import annotations

import pytest

from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.metrics.bands import Bands
from simserve.metrics.summary import summarize
from simserve.models import load_model
from simserve.simulation.cluster import Defaults, cluster_of, simulate_cluster
from simserve.simulation.cluster.report import cluster_object
from simserve.workload import synthetic_workload

DEFAULTS = Defaults(load_model("facebook/opt-125m"), load_hardware("A100"), EngineOptions())
TWO_GROUPS = {
    "groups": [
        {"name": "big", "replicas": 2, "usd_per_device_hour": 3.0},
        {"name": "small", "hardware": "L4", "replicas": 1, "usd_per_device_hour": 1.0},
    ],
    "autoscalers": [{"group": "small", "max_replicas": 3, "target": 1, "interval_s": 1, "startup_s": 5}],
}


def test_replicas_and_groups_add_up_and_everybody_who_is_there_is_paid_for() -> None:
    done = simulate_cluster(synthetic_workload(400, 40.0, 500, 100, seed=3), cluster_of(TWO_GROUPS, "test"), DEFAULTS)
    result = cluster_object(done, summarize(done.records, done.totals), Bands("none"))
    for key in ("energy_wh", "energy_wh_low", "energy_wh_high", "cost_usd", "device_hours"):
        for part in ("groups", "replicas"):
            assert sum(each[key] for each in result[part]) == pytest.approx(result[key]), (key, part)
    for member in done.members:
        power = load_hardware(member.hardware).power
        assert power is not None
        assert member.bill.energy_wh is not None
        joules = member.bill.energy_wh * 3600.0
        assert 0.05 * power.peak_w * member.alive_s <= joules <= power.peak_w * member.alive_s
        usd_per_hour = 3.0 if member.group == "big" else 1.0
        assert member.bill.cost_usd == pytest.approx(member.alive_s / 3600.0 * usd_per_hour)
    started = [member for member in done.members if member.name in ("small/1", "small/2")]
    assert any(member.alive_s > member.busy_s > 0.0 for member in started), "a cold start was paid for"


def test_one_replica_costs_what_a_single_engine_does_from_time_0_on() -> None:
    from simserve.metrics.bill import bill_of
    from simserve.simulation import simulate

    workload = synthetic_workload(50, 5.0, 500, 100, seed=1)
    assert DEFAULTS.model is not None
    assert DEFAULTS.hardware is not None
    alone = simulate(workload, DEFAULTS.model, DEFAULTS.hardware, DEFAULTS.options)
    spec = cluster_of({"groups": [{"name": "all"}]}, "test")
    (member,) = simulate_cluster(workload, spec, DEFAULTS).members
    bill = bill_of(alone.totals, alone.description, member.alive_s)
    assert member.bill.energy_wh == pytest.approx(bill.energy_wh)
    assert member.bill.cost_usd == pytest.approx(bill.cost_usd)
