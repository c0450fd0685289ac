"""A cluster as the server sees it: one engine, whose replicas may come and go without a token lost or told twice."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from simserve.config import EngineOptions
from simserve.engines import ClusterEngine, GenerationRequest, SimulatedEngine, TokenEvent
from simserve.engines.reports import Arrival, Ending, StepReport
from simserve.errors import EngineError, OverloadedError, ReplicaError
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.simulation import prepare, simulate
from simserve.simulation.cluster import Defaults, cluster_of, prepare_groups, simulate_cluster
from simserve.workload import PrefixUnits, Workload

MODEL, HARDWARE = load_model("facebook/opt-125m"), load_hardware("A100")
THREE = {"groups": [{"name": "all", "replicas": 3}]}
SLOW = 0.05
"""Time scale at which a step takes some 20 ms: a test does what it does before the streams end, and then hurries."""

FAST = 50.0

APART = {
    "groups": [{"name": "p", "replicas": 2, "role": "prefill"}, {"name": "d", "replicas": 2, "role": "decode"}],
    "links": [{"from": "p", "to": "d", "bandwidth_gb_per_s": 20}],
}


class Watcher:
    """Keeps what the engine tells."""

    def __init__(self) -> None:
        self.endings: list[Ending] = []
        self.output_tokens = 0

    def arrived(self, arrival: Arrival) -> None:
        """Of no interest."""

    def step_done(self, step: StepReport) -> None:
        self.output_tokens += step.output_tokens

    def ended(self, ending: Ending) -> None:
        self.endings.append(ending)


@asynccontextmanager
async def running(values: dict[str, Any], time_scale: float = math.inf, **options: Any) -> AsyncIterator[ClusterEngine]:
    spec = cluster_of(values, "test")
    engine = ClusterEngine(spec, prepare_groups(spec, MODEL, HARDWARE, EngineOptions(**options)), time_scale)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def request(name: str, limit: int = 10, prompt: int = 100, **fields: Any) -> GenerationRequest:
    return GenerationRequest(name, list(range(prompt)), limit, **fields)


async def collect(engine: ClusterEngine | SimulatedEngine, wanted: GenerationRequest) -> list[TokenEvent]:
    return [event async for event in engine.submit(wanted)]


async def until(condition: Any) -> None:
    """Wait until ``condition()`` holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def tokens(events: list[TokenEvent]) -> int:
    return sum(event.tokens for event in events)


def replica(engine: ClusterEngine, name: str) -> Any:
    found = engine.replica(name)
    assert found is not None
    return found


def check_nothing_is_left(engine: ClusterEngine) -> None:
    status = engine.status()
    assert (status.running_requests, status.waiting_requests, status.kv_blocks_used) == (0, 0, 0)
    assert all(one.row()["requests"] == 0 for one in engine.replicas)
    assert engine._cluster.is_quiet
    assert not engine._late


# Nothing differs from what is known.

ROUTED = [
    {"policy": "round-robin"},
    {"policy": "least-requests"},
    {"policy": "power-of-two", "staleness_s": 0.05},
    {"policy": "prefix-aware", "requests_per_replica": 2},
]


@pytest.mark.parametrize("values", [*({**THREE, "router": router} for router in ROUTED), APART])
@pytest.mark.parametrize("front_end", ["none", "1:5:200"])
async def test_the_trace_of_what_was_served_gives_the_same_in_simulate(values: dict[str, Any], front_end: str) -> None:
    """The same replica for each request, and the same times: live or not, it is one simulation."""
    watcher, options = Watcher(), {"front_end": front_end}
    async with running(values, 5.0, **options) as engine:
        engine.observe(watcher)
        asking = []
        for at in range(60):
            asked = GenerationRequest(f"r{at}", [at % 4] * (20 + 37 * (at % 9)), 5 + 23 * (at % 7))
            asking.append(asyncio.create_task(collect(engine, asked)))
            await asyncio.sleep(0.002 * (at % 5))
        answers = await asyncio.gather(*asking)
        check_nothing_is_left(engine)
    assert [tokens(events) for events in answers] == [5 + 23 * (at % 7) for at in range(60)]
    served = sorted(watcher.endings, key=lambda ending: ending.arrival_s)
    spec = cluster_of(values, "test")
    done = simulate_cluster(workload_of(served), spec, Defaults(MODEL, HARDWARE, EngineOptions(**options)))
    names = [done.members[index].name for index in done.places.member]
    assert names == [ending.replica for ending in served]
    timings = [ending.timing for ending in served if ending.timing]
    for field in ("scheduled_s", "first_token_s", "finish_s", "cached_tokens"):
        live = [getattr(timing, field) for timing in timings]
        np.testing.assert_allclose(live, getattr(done.records, field), rtol=1e-9, atol=1e-9, err_msg=field)


@pytest.mark.parametrize("router", ["round-robin", "least-tokens", "prefix-aware", "mix"])
async def test_one_replica_behind_any_router_is_the_engine_by_itself(router: str) -> None:
    watcher = Watcher()
    async with running({"groups": [{"name": "all"}], "router": {"policy": router}}, 5.0) as engine:
        engine.observe(watcher)
        asking = []
        for at in range(20):
            asking.append(asyncio.create_task(collect(engine, request(f"r{at}", 5 + at, 30 + 17 * at))))
            await asyncio.sleep(0.001 * (at % 3))
        await asyncio.gather(*asking)
    served = sorted(watcher.endings, key=lambda ending: ending.arrival_s)
    alone = simulate(workload_of(served), MODEL, HARDWARE, EngineOptions())
    live = [ending.timing.finish_s for ending in served if ending.timing]
    np.testing.assert_allclose(live, alone.records.finish_s, rtol=1e-9)


async def test_one_replica_describes_itself_as_the_engine_by_itself_does() -> None:
    alone = SimulatedEngine(prepare(MODEL, HARDWARE, EngineOptions()), math.inf)
    async with running({"groups": [{"name": "all"}]}) as engine:
        assert alone.describe().items() <= engine.describe().items()
        assert engine.max_model_len == alone.max_model_len
        of_a_cluster, of_one = engine.status(), alone.status()
        assert of_a_cluster.kv_blocks_total == of_one.kv_blocks_total
        assert of_a_cluster.kv_block_bytes == of_one.kv_block_bytes


def workload_of(served: list[Ending]) -> Workload:
    offsets = np.cumsum([0, *(len(ending.prefix_hashes) for ending in served)])
    hashes = np.array([one for ending in served for one in ending.prefix_hashes], dtype=np.int64)
    columns = [[getattr(e, name) for e in served] for name in ("arrival_s", "input_tokens", "output_tokens")]
    prefix = PrefixUnits(served[0].unit_tokens, hashes, offsets)
    return Workload("served", *map(np.array, columns), prefix)


# Killed, revived, drained.


@pytest.mark.parametrize("front_end", ["none", "1:1:500"])
async def test_streams_of_a_killed_replica_go_on_elsewhere_with_no_token_twice(front_end: str) -> None:
    watcher = Watcher()
    async with running(THREE, SLOW, front_end=front_end) as engine:
        engine.observe(watcher)
        asking = [asyncio.create_task(collect(engine, request(f"r{at}", 200, 50 + at))) for at in range(12)]
        await until(lambda: engine.status().steps > 15)
        assert await engine.kill(replica(engine, "all/1"), None)
        assert not await engine.kill(replica(engine, "all/1"), None), "it is dead"
        engine.set_time_scale(FAST)
        answers = await asyncio.gather(*asking)
        check_nothing_is_left(engine)
        gateway: Any = engine.status().extra["gateway"]
        assert gateway["retries"] == 4
        assert {ending.replica for ending in watcher.endings} == {"all/0", "all/2"}
        assert replica(engine, "all/1").row()["state"] == "stopped"
        assert await engine.revive(replica(engine, "all/1"))
        assert replica(engine, "all/1").row()["state"] == "ready"
    assert [tokens(events) for events in answers] == [200] * 12
    assert {events[-1].finish_reason for events in answers} == {"length"}
    assert watcher.output_tokens == 12 * 200
    assert [(ending.input_tokens, ending.output_tokens) for ending in watcher.endings] == [
        (ending.input_tokens, 200) for ending in watcher.endings
    ]
    assert sorted(ending.input_tokens for ending in watcher.endings) == [50 + at for at in range(12)]


async def test_where_nothing_is_retried_a_dead_replicas_streams_end_with_an_error_and_others_go_on() -> None:
    watcher = Watcher()
    async with running({**THREE, "retry": "never"}, SLOW) as engine:
        engine.observe(watcher)
        asking = [asyncio.create_task(collect(engine, request(f"r{at}", 200))) for at in range(6)]
        await until(lambda: engine.status().steps > 15)
        await engine.kill(replica(engine, "all/1"), 0.0)
        engine.set_time_scale(FAST)
        answers = await asyncio.gather(*asking, return_exceptions=True)
        check_nothing_is_left(engine)
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(failed) == 2
    assert all(isinstance(error, ReplicaError) for error in failed)
    assert str(failed[0]) == "replica all/1, which served this request, has failed, and this cluster retries nothing"
    assert [tokens(events) for events in answers if isinstance(events, list)] == [200] * 4
    endings = [ending for ending in watcher.endings if ending.finish_reason == "error"]
    assert [ending.replica for ending in endings] == ["all/1"] * 2
    assert all(0 < ending.output_tokens < 200 for ending in endings)


async def test_retries_come_to_an_end() -> None:
    async with running({"groups": [{"name": "all", "replicas": 2}], "max_retries": 1}, SLOW) as engine:
        asking = asyncio.create_task(collect(engine, request("a", 1000)))
        for name in ("all/0", "all/1"):
            one = replica(engine, name)
            await until(lambda one=one: one.status().running_requests == 1)
            await engine.kill(one, 0.0)
        with pytest.raises(ReplicaError, match="has failed, after 1 retries; there are no more than 1"):
            await asking
        check_nothing_is_left(engine)


async def test_who_comes_when_no_replica_is_left_is_refused_and_who_comes_while_one_is_down_waits() -> None:
    async with running({"groups": [{"name": "all"}]}, SLOW) as engine:
        one = replica(engine, "all/0")
        await engine.kill(one, 0.5)
        asking = asyncio.create_task(collect(engine, request("a")))
        await until(lambda: engine.status().waiting_requests == 1)
        engine.set_time_scale(FAST)
        events = await asking
        assert events[-1].timing is not None
        assert events[-1].timing.scheduled_s - events[-1].timing.arrival_s > 0.1
        await engine.kill(one, None)
        with pytest.raises(ReplicaError, match="no replica is left"):
            engine.submit(request("b"))
        assert await engine.revive(one)
        assert tokens(await collect(engine, request("c"))) == 10
        check_nothing_is_left(engine)


async def test_a_drained_replica_ends_its_streams_and_gets_no_others() -> None:
    async with running(THREE, SLOW) as engine:
        first = [asyncio.create_task(collect(engine, request(f"a{at}", 150))) for at in range(3)]
        one = replica(engine, "all/2")
        await until(lambda: one.status().running_requests == 1)
        assert await engine.drain(one)
        assert one.state == "draining"
        assert not await engine.drain(one)
        later = [asyncio.create_task(collect(engine, request(f"b{at}", 150))) for at in range(6)]
        await asyncio.sleep(0)
        engine.set_time_scale(FAST)
        answers = await asyncio.gather(*first, *later)
        assert one.state == "stopped"
        assert one.completed == 1
        check_nothing_is_left(engine)
    assert [tokens(events) for events in answers] == [150] * 9


async def test_closing_the_last_stream_of_a_draining_replica_stops_it() -> None:
    async with running(THREE, SLOW) as engine:
        one = replica(engine, "all/0")
        stream = engine.submit(request("a", 1000))
        await until(lambda: one.status().running_requests == 1)
        await engine.drain(one)
        await stream.aclose()
        await until(lambda: one.state == "stopped")
        check_nothing_is_left(engine)


async def test_an_order_is_carried_out_at_its_time_and_not_when_something_last_happened() -> None:
    """Nothing happens for a while, then a replica dies for a second: a second from now, not from then."""
    async with running({"groups": [{"name": "all"}]}, 10.0) as engine:
        await collect(engine, request("a"))
        await until(lambda: engine.clock.now_s() > 5.0)
        killed_s = engine.clock.now_s()
        await engine.kill(replica(engine, "all/0"), 1.0)
        events = await collect(engine, request("b"))
    assert events[-1].timing is not None
    assert events[-1].timing.scheduled_s >= killed_s + 1.0


async def test_orders_are_taken_while_the_clock_is_held() -> None:
    async with running(THREE, SLOW) as engine:
        stream = engine.submit(request("a", 500))
        await anext(stream)
        engine.pause()
        assert await engine.kill(replica(engine, "all/0"), None)
        engine.resume()
        engine.set_time_scale(FAST)
        assert sum([event.tokens async for event in stream]) < 500
        check_nothing_is_left(engine)


async def test_an_order_that_comes_too_late_is_told_so() -> None:
    async with running(THREE, 1.0) as engine:
        order = asyncio.create_task(engine.kill(replica(engine, "all/0"), None))
        await asyncio.sleep(0)
        await engine.stop()
        with pytest.raises(EngineError, match="shutting down"):
            await order


# Given up, wherever they are.


@pytest.mark.parametrize("front_end", ["none", "20:0:2000"])
@pytest.mark.parametrize("values", [THREE, APART, {**THREE, "router": {"requests_per_replica": 1}}])
async def test_streams_may_be_closed_at_any_moment(values: dict[str, Any], front_end: str) -> None:
    """Some are being read, some wait in the gateway, some are on a link: nothing of any of them stays."""
    async with running(values, 5.0, front_end=front_end) as engine:
        streams = [engine.submit(request(f"r{at}", 1000, 300 + 50 * at)) for at in range(12)]
        for stream in streams:
            await stream.aclose()
            await asyncio.sleep(0.002)
        await until(lambda: engine.status().aborted_requests and engine._cluster.is_quiet)
        check_nothing_is_left(engine)
        status = engine.status()
        assert status.aborted_requests + status.completed_requests == 12
        assert tokens(await collect(engine, request("after"))) == 10


async def test_a_request_whose_kv_is_on_a_link_is_given_up() -> None:
    slow = {**APART, "links": [{"from": "p", "to": "d", "bandwidth_gb_per_s": 0.001}]}
    async with running(slow, 1.0) as engine:
        stream = engine.submit(request("a", 50, 1000))
        await anext(stream)
        gateway: Any = engine.status().extra["gateway"]
        assert gateway["requests_on_a_link"] == 1
        await stream.aclose()
        await until(lambda: engine.status().aborted_requests == 1)
        check_nothing_is_left(engine)


# Limits of the cluster file.


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        ({"max_requests": 4}, 4),
        ({"max_tokens": 500}, 4),
        ({"requests_per_replica": 1, "max_waiting_requests": 2}, 5),
        ({"requests_per_replica": 1, "max_waiting_requests": 0}, 3),
    ],
)
async def test_one_too_many_is_refused_at_once_and_later_taken(limits: dict[str, int], fits: int) -> None:
    """In one burst, before any of them has reached the gateway, and again when all of them have."""
    async with running({**THREE, "router": limits}, SLOW) as engine:
        asking = [asyncio.create_task(collect(engine, request(f"r{at}", 20))) for at in range(fits)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="the cluster has enough to do: its limit is max_"):
            engine.submit(request("one too many", 20))
        engine.set_time_scale(FAST)
        answers = await asyncio.gather(*asking)
        assert [tokens(events) for events in answers] == [20] * fits
        assert tokens(await collect(engine, request("later", 20))) == 20
        gateway: Any = engine.status().extra["gateway"]
        assert gateway["throttled_requests"] == 1
        check_nothing_is_left(engine)


async def test_a_request_that_names_a_tenant_as_its_user_is_that_tenants() -> None:
    tenants = [{"name": "a", "traffic": 1000}, {"name": "b", "traffic": 0.001, "priority": 7}]
    async with running({**THREE, "tenants": tenants}, SLOW) as engine:
        streams = [engine.submit(request("x", 100, session="b")), engine.submit(request("y", 100, session="else"))]
        await anext(streams[0])
        held = engine._cluster._unfinished
        assert (held["x"].tenant, held["x"].priority) == (1, 7)
        assert held["y"].tenant == 0
        for stream in streams:
            await stream.aclose()


# What goes on by itself.


async def test_failures_and_scaling_of_the_file_happen_live() -> None:
    values = {
        "groups": [{"name": "all", "replicas": 1}],
        "failures": [{"group": "all", "replica": 0, "at_s": 1.0, "down_s": 2.0}],
        "autoscalers": [
            {
                "group": "all",
                "max_replicas": 3,
                "target": 1,
                "interval_s": 0.5,
                "startup_s": 0.1,
                "scale_down_delay_s": 1,
            }
        ],
    }
    async with running(values, 10.0) as engine:
        asking = [asyncio.create_task(collect(engine, request(f"r{at}", 1900))) for at in range(6)]
        await until(lambda: sum(one.state == "ready" for one in engine.replicas) >= 2)
        answers = await asyncio.gather(*asking)
        assert replica(engine, "all/0").failures == 1
        check_nothing_is_left(engine)
        await until(lambda: sum(one.state == "ready" for one in engine.replicas) == 1)
    assert [tokens(events) for events in answers] == [1900] * 6


async def test_at_infinite_speed_time_stands_still_while_nobody_asks() -> None:
    values = {
        "groups": [{"name": "all", "replicas": 1}],
        "autoscalers": [{"group": "all", "max_replicas": 2, "target": 1, "interval_s": 0.01}],
    }
    async with running(values) as engine:
        assert tokens(await collect(engine, request("a"))) == 10
        clock_s = engine.clock.now_s()
        assert clock_s < 1.0
        await asyncio.sleep(0.05)
        assert engine.clock.now_s() == clock_s
        assert await engine.kill(replica(engine, "all/0"), 30.0)
        assert tokens(await collect(engine, request("b"))) == 10, "it came back at the time it was to, by itself"
        check_nothing_is_left(engine)


# All that an engine can do beside.


async def test_sleep_and_the_prefix_cache_are_of_all_replicas() -> None:
    async with running(THREE, SLOW) as engine:
        await collect(engine, request("a"))
        await collect(engine, request("b"))
        assert engine.reset_prefix_cache()
        events = await collect(engine, request("c"))
        stream = engine.submit(request("d", 1000))
        await anext(stream)
        assert not engine.reset_prefix_cache(), "somebody holds blocks"
        await engine.sleep(1, "abort")
        check_nothing_is_left(engine)
        waiting = asyncio.create_task(collect(engine, request("e")))
        await asyncio.sleep(0.01)
        assert engine.status().waiting_requests == 1
        engine.wake_up([])
        assert tokens(await waiting) == 10
    assert events[-1].timing is not None
    assert events[-1].timing.cached_tokens == 0


async def test_stopping_ends_every_stream() -> None:
    async with running(THREE, SLOW) as engine:
        asking = [asyncio.create_task(collect(engine, request(f"r{at}", 1000))) for at in range(4)]
        await until(lambda: engine.status().running_requests == 4)
        await engine.stop()
        answers = await asyncio.gather(*asking)
    assert {events[-1].finish_reason for events in answers} == {"abort"}
