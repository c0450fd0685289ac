"""Where queueing theory has an answer, the simulation gives it: one request at a time, M/D/1, M/M/c, power of two.

Waiting times near saturation need tens of millions of requests before their mean settles within a percent. So each
claim is made in two steps: request by request the simulation equals the textbook's recursion on the same arrivals, and
the recursion, which is cheap, has the formula's mean.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from simserve.config import EngineOptions
from simserve.latency.step_timer import StepWork
from simserve.simulation import OpenLoop
from simserve.simulation.cluster import Cluster
from simserve.simulation.cluster.groups import Group, prepare_groups
from simserve.simulation.cluster.recorder import merged_records
from simserve.workload import Workload
from simulation.cluster.clusters import HARDWARE, MODEL, spec

Floats = npt.NDArray[np.float64]
LOADS = (0.5, 0.8, 0.95)
STEP_S = 0.001
ONE_AT_A_TIME = EngineOptions(max_num_seqs=1, async_scheduling=False, enable_prefix_caching=False)


class EqualSteps:
    """Every step takes a millisecond, so that a request is served for as many as it has tokens of answer."""

    def step_s(self, decodes: int, context: int, chunks: Any, sampled: int) -> float:
        return STEP_S

    def decode_steps_s(self, decodes: int, context: int, steps: int) -> Floats:
        return np.full(steps, STEP_S)

    def total_work(self, *runs: Floats) -> StepWork:
        return StepWork(0.0, 0.0)


def waits(arrival_s: Floats, tokens: npt.NDArray[np.int64], replicas: int, **router: Any) -> Floats:
    """How long each request waits for its service on a simulated cluster."""
    cluster = spec(groups=[{"name": "all", "replicas": replicas}], router=router)
    groups = [with_equal_steps(group) for group in prepare_groups(cluster, MODEL, HARDWARE, ONE_AT_A_TIME)]
    workload = Workload("queue", arrival_s, np.full(len(tokens), 8), tokens)
    ran = Cluster(cluster, groups, OpenLoop(workload), None)
    ran.run()
    records, _ = merged_records(ran.recorders)
    found: Floats = records.scheduled_s - records.arrival_s
    return found


def with_equal_steps(group: Group) -> Group:
    timer: Any = EqualSteps()
    return replace(group, setup=replace(group.setup, timer=timer))


def lindley(arrival_s: Floats, service_s: Floats | float) -> Floats:
    """Waits before one server (Lindley, 1952): how far work has risen above its lowest level so far."""
    gaps, served = np.diff(arrival_s), np.broadcast_to(service_s, arrival_s.shape)[:-1]
    level = np.concatenate(([0.0], np.cumsum(served - gaps)))
    found: Floats = level - np.minimum.accumulate(level)
    return found


def kiefer_wolfowitz(arrival_s: Floats, service_s: Floats, servers: int) -> Floats:
    """Waits in one queue before ``servers`` servers (Kiefer and Wolfowitz, 1955)."""
    free_s = [0.0] * servers
    found = np.empty_like(arrival_s)
    for row, (now_s, takes_s) in enumerate(zip(arrival_s.tolist(), service_s.tolist(), strict=True)):
        start_s = max(now_s, free_s[0])
        heapq.heapreplace(free_s, start_s + takes_s)
        found[row] = start_s - now_s
    return found


def erlang_c_wait_s(load: float, servers: int, service_s: float) -> float:
    """Mean wait in M/M/c."""
    offered = load * servers
    below = sum(offered**n / math.factorial(n) for n in range(servers))
    top = offered**servers / math.factorial(servers) / (1 - load)
    return top / (below + top) * service_s / (servers * (1 - load))


@pytest.mark.parametrize("load", LOADS)
def test_constant_service_is_m_d_1(load: float) -> None:
    rng, tokens = np.random.default_rng(1), 20
    service_s = tokens * STEP_S
    arrival_s = np.cumsum(rng.exponential(service_s / load, 3000))
    assert waits(arrival_s, np.full(3000, tokens), 1) == pytest.approx(lindley(arrival_s, service_s), abs=1e-9)

    formula_s = load * service_s / (2 * (1 - load))  # Pollaczek and Khinchine
    many = np.mean(
        [lindley(np.cumsum(rng.exponential(service_s / load, 5_000_000)), service_s).mean() for _ in range(6)]
    )
    assert many == pytest.approx(formula_s, rel=0.02)


@pytest.mark.parametrize("load", LOADS)
def test_one_queue_before_replicas_is_m_m_c(load: float) -> None:
    rng, servers, mean_tokens = np.random.default_rng(2), 4, 500
    tokens = rng.geometric(1 / mean_tokens, 3000)
    arrival_s = np.cumsum(rng.exponential(mean_tokens * STEP_S / (load * servers), 3000))
    simulated = waits(arrival_s, tokens, servers, requests_per_replica=1)
    assert simulated == pytest.approx(kiefer_wolfowitz(arrival_s, tokens * STEP_S, servers), abs=1e-6)


@pytest.mark.parametrize(("load", "settling", "counted"), [(0.5, 50, 300), (0.8, 400, 600), (0.95, 4000, 4000)])
def test_that_recursion_has_erlang_s_mean(load: float, settling: int, counted: int) -> None:
    """Ten thousand queues side by side, for long enough to forget that they began empty."""
    rng, servers, queues = np.random.default_rng(3), 4, 10_000
    free, total = np.zeros((queues, servers)), 0.0  # when each server is free, from the latest arrival on
    for row in range(settling + counted):
        free = np.maximum(free - rng.exponential(1 / (load * servers), (queues, 1)), 0.0)
        free.sort(axis=1)
        if row >= settling:
            total += float(free[:, 0].mean())
        free[:, 0] += rng.exponential(1.0, queues)
    assert total / counted == pytest.approx(erlang_c_wait_s(load, servers, 1.0), rel=0.02)


@pytest.mark.parametrize(("load", "per_replica", "settling"), [(0.5, 60, 10), (0.8, 120, 30), (0.95, 300, 100)])
def test_power_of_two_has_mitzenmacher_s_mean(load: float, per_replica: int, settling: int) -> None:
    """Time in the system is the sum over i >= 1 of load ** (2 ** i - 2) services, for very many replicas (1996).

    The load is that of the requests drawn, from which a few tens of thousands leave the mean by half a percent.
    """
    replicas, mean_tokens = 500, 200
    rng = np.random.default_rng(4)
    count, first = replicas * per_replica, replicas * settling
    tokens = rng.geometric(1 / mean_tokens, count)
    arrival_s = np.cumsum(rng.exponential(mean_tokens * STEP_S / (load * replicas), count))
    waited_s = waits(arrival_s, tokens, replicas, policy="power-of-two")[first:]
    service_s = tokens[first:].mean() * STEP_S
    drawn = service_s * (count - first) / (arrival_s[-1] - arrival_s[first]) / replicas
    formula = sum(drawn ** (2**i - 2) for i in range(1, 12))
    assert (waited_s.mean() + service_s) / service_s == pytest.approx(formula, rel=0.02)
