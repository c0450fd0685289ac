"""What is told of a cluster: sums, and each replica by itself, in all places where one engine is told of."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from server.cluster.serving import THREE, check_nothing_is_left, hurry, post, serving_cluster, streamed, until
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.simulation.cluster import Defaults, cluster_of, simulate_cluster
from simserve.workload.traces import read_trace

ROUTED = {**THREE, "router": {"policy": "least-requests"}}


async def samples(session: aiohttp.ClientSession) -> dict[str, dict[str, float]]:
    """Of each metric, the sum of its samples by the label ``engine``."""
    async with session.get("/metrics") as response:
        page = await response.text()
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            by_engine = found.setdefault(sample.name, {})
            engine = sample.labels.get("engine", "")
            by_engine[engine] = by_engine.get(engine, 0.0) + sample.value
    return found


async def test_status_has_sums_and_a_row_for_each_replica() -> None:
    async with serving_cluster(THREE) as client:
        asking = [asyncio.create_task(streamed(client, 200)) for _ in range(6)]
        now = await until(client, lambda now: now["running_requests"] == 6)
        assert [row["name"] for row in now["replicas"]] == ["all/0", "all/1", "all/2"]
        assert [row["running_requests"] for row in now["replicas"]] == [2, 2, 2]
        assert now["kv_blocks"]["used"] == sum(row["kv_blocks"]["used"] for row in now["replicas"]) > 0
        assert now["engine"]["replicas"] == 3
        assert now["engine"]["groups"][0]["name"] == "all"
        assert now["gateway"]["router"] == "round-robin"
        await hurry(client)
        await asyncio.gather(*asking)
        await check_nothing_is_left(client)
        now = await client.get("/status")
        assert now["completed_requests"] == 6
        assert [row["completed_requests"] for row in now["replicas"]] == [2, 2, 2]
        rows = (await client.get("/cluster/replicas"))["replicas"]
        assert rows == now["replicas"]
        assert await client.get("/cluster/replicas/all/1") == rows[1]


async def test_memory_of_groups_with_different_blocks_adds_up() -> None:
    groups = [{"name": "a"}, {"name": "b", "engine": {"block_size": 32, "num_gpu_blocks": 1001}}]
    async with serving_cluster({"groups": groups}) as client:
        now = await client.get("/status")
    first, second = (row["kv_blocks"]["total"] for row in now["replicas"])
    assert second == 1000
    assert now["kv_blocks"]["total"] == first + second
    block_bytes = load_model("facebook/opt-125m").kv_bytes_per_token("float16") * 16
    assert now["memory_usage"]["total"] == (first + 2 * second) * block_bytes


async def test_metrics_number_the_engines_as_vllm_does() -> None:
    async with serving_cluster(THREE, ".inf") as client:
        for _ in range(6):
            await streamed(client, 20)
        found = await samples(client.session)
    assert found["vllm:generation_tokens_total"] == {"0": 40, "1": 40, "2": 40}
    assert found["vllm:request_success_total"] == {"0": 2, "1": 2, "2": 2}
    assert found["vllm:time_to_first_token_seconds_count"] == {"0": 2, "1": 2, "2": 2}
    assert found["vllm:num_requests_running"] == {"0": 0, "1": 0, "2": 0}
    assert found["simserve:replica_state"] == {"0": 1, "1": 1, "2": 1}
    assert set(found["simserve:token_lateness_seconds_count"]) == {"0"}, "one clock for all"


async def test_the_trace_names_the_replica_and_simulate_gives_the_same(tmp_path: Path) -> None:
    """What clients were told of their timing is what ``simserve simulate --cluster`` makes of the same requests."""
    told: dict[str, dict[str, float]] = {}

    async def ask(at: int) -> None:
        prompt = "word " * (10 + 30 * (at % 6))
        async with client.complete(max_tokens=5 + 20 * (at % 5), prompt=prompt) as response:
            body = await response.json()
            told[body["id"]] = {name: float(response.headers[f"x-simserve-{name}-ms"]) for name in ("ttft", "e2e")}

    async with serving_cluster(ROUTED, "10.0") as client:
        asking = []
        for at in range(40):
            asking.append(asyncio.create_task(ask(at)))
            await asyncio.sleep(0.002 * (at % 4))
        await asyncio.gather(*asking)
        async with client.session.get("/trace") as response:
            trace = await response.text()
    file = tmp_path / "served.jsonl"
    file.write_text(trace)
    rows = sorted(map(json.loads, trace.splitlines()), key=lambda row: row["arrival_s"])
    done = simulate_cluster(
        read_trace(str(file)),
        cluster_of(ROUTED, "test"),
        Defaults(load_model("facebook/opt-125m"), load_hardware("A100")),
    )
    names = [member.name for member in done.members]
    assert [row["replica"] for row in rows] == [names[index] for index in done.places.member]
    assert len(Counter(row["replica"] for row in rows)) == 3
    records = done.records
    for name, ends in (("ttft", records.first_token_s), ("e2e", records.finish_s)):
        live = [told[row["request_id"].rsplit("-", 1)[0]][name] for row in rows]
        np.testing.assert_allclose(live, (ends - records.arrival_s) * 1e3, atol=0.01, err_msg=name)


async def test_one_replica_is_told_of_as_one_engine_is_but_for_what_is_more() -> None:
    async with serving_cluster({"groups": [{"name": "all"}]}, ".inf") as client:
        answer = await streamed(client, 20)
        async with client.session.get("/trace") as response:
            row = json.loads(await response.text())
        found = await samples(client.session)
    assert len(answer.words) == 20
    assert row["replica"] == "all/0"
    assert set(found["vllm:num_requests_running"]) == {"0"}


async def test_the_dashboard_shows_sums_and_each_replica() -> None:
    async with serving_cluster(THREE) as client:
        await post(client, "/cluster/replicas/all/2/kill")
        asking = asyncio.create_task(streamed(client, 600))
        await until(client, lambda now: now["running_requests"] == 1)
        async with client.session.get("/dashboard/events") as response:
            await response.content.readuntil(b"\n\n")
            event: dict[str, Any] = json.loads((await response.content.readuntil(b"\n\n")).removeprefix(b"data: "))
        await hurry(client)
        await asking
    assert event["points"][0]["running"] == 1
    assert [row[:4] for row in event["replicas"]] == [
        ["all/0", "ready", 1, 0],
        ["all/1", "ready", 0, 0],
        ["all/2", "stopped", 0, 0],
    ]


async def test_with_no_replica_left_everything_can_still_be_asked() -> None:
    async with serving_cluster({"groups": [{"name": "all"}]}) as client:
        await post(client, "/cluster/replicas/all/0/kill")
        now = await client.get("/status")
        assert now["kv_blocks"]["total"] == 0
        assert (await samples(client.session))["simserve:replica_failures_total"] == {"0": 1}
        async with client.session.get("/dashboard/events") as response:
            assert b'"kv_used":0.0' in await response.content.readuntil(b"\n\n") + await response.content.readuntil(
                b"\n\n"
            )
        await check_nothing_is_left(client)
