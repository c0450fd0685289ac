"""Replicas die while clients read: every stream gets all its tokens or is told why not, and nothing is left behind."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from server.cluster.serving import (
    THREE,
    check_nothing_is_left,
    hurry,
    post,
    replica,
    serving_cluster,
    streamed,
    until,
)

APART = {
    "groups": [{"name": "p", "replicas": 2, "role": "prefill"}, {"name": "d", "replicas": 2, "role": "decode"}],
    "links": [{"from": "p", "to": "d", "bandwidth_gb_per_s": 10}],
}
TOKENS = 150


async def test_streams_of_a_replica_killed_in_the_middle_go_on_where_they_were() -> None:
    """The words are those of an undisturbed answer: none is missing and none comes twice."""
    async with serving_cluster(THREE) as client:
        asking = [asyncio.create_task(streamed(client, TOKENS, prompt=f"{at} once upon a time")) for at in range(9)]
        await until(client, lambda now: replica(now, "all/1")["running_requests"] == 3)
        status, row = await post(client, "/cluster/replicas/all/1/kill")
        assert (status, row["state"], row["failures"]) == (200, "stopped", 1)
        await hurry(client)
        answers = await asyncio.gather(*asking)
        assert (await client.get("/status"))["gateway"]["retries"] == 3
        await check_nothing_is_left(client)
        undisturbed = await streamed(client, TOKENS, prompt="1 once upon a time")
    assert answers[1].words == undisturbed.words
    for answer in answers:
        assert (len(answer.words), answer.finish_reason, answer.error) == (TOKENS, "length", None)


async def test_it_is_the_same_where_prefill_and_decode_are_apart() -> None:
    async with serving_cluster(APART) as client:
        asking = [asyncio.create_task(streamed(client, TOKENS)) for _ in range(8)]
        await until(client, lambda now: replica(now, "d/0")["running_requests"] > 0)
        assert (await post(client, "/cluster/replicas/d/0/kill"))[0] == 200
        assert (await post(client, "/cluster/replicas/p/1/kill"))[0] == 200
        await hurry(client)
        answers = await asyncio.gather(*asking)
        await check_nothing_is_left(client)
    assert [(len(answer.words), answer.error) for answer in answers] == [(TOKENS, None)] * 8


async def test_where_nothing_is_retried_its_streams_end_with_an_error_object_and_the_others_go_on() -> None:
    async with serving_cluster({**THREE, "retry": "never"}) as client:
        asking = [asyncio.create_task(streamed(client, TOKENS)) for _ in range(6)]
        await until(client, lambda now: replica(now, "all/2")["running_requests"] == 2)
        await post(client, "/cluster/replicas/all/2/kill", {"down_s": 0.5})
        await hurry(client)
        answers = await asyncio.gather(*asking)
        await until(client, lambda now: replica(now, "all/2")["state"] == "ready")
        await check_nothing_is_left(client)
        page = await (await client.session.get("/metrics")).text()
    lost = [answer for answer in answers if answer.error]
    assert len(lost) == 2
    assert lost[0].error == {
        "message": "Replica all/2, which served this request, has failed, and this cluster retries nothing.",
        "type": "server_error",
        "param": None,
        "code": "replica_failed",
    }
    assert all(len(answer.words) < TOKENS and answer.finish_reason is None for answer in lost)
    assert [len(answer.words) for answer in answers if not answer.error] == [TOKENS] * 4
    assert 'simserve:gateway_requests_total{model_name="facebook/opt-125m",outcome="failed"} 2.0' in page
    assert 'vllm:request_success_total{engine="2",finished_reason="error",model_name="facebook/opt-125m"} 2.0' in page


async def test_an_answer_that_is_not_streamed_is_503_when_its_last_replica_is_gone() -> None:
    async with serving_cluster({"groups": [{"name": "all"}]}) as client:
        asking = asyncio.create_task(post(client, "/v1/completions", {"prompt": "hello", "max_tokens": 2000}))
        await until(client, lambda now: now["running_requests"] == 1)
        await post(client, "/cluster/replicas/all/0/kill")
        await hurry(client)
        status, body = await asking
        assert (status, body["error"]["code"]) == (503, "replica_failed")
        async with client.complete(max_tokens=10) as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "1"
        assert (await post(client, "/cluster/replicas/all/0/revive"))[1]["state"] == "ready"
        assert len((await streamed(client, 10)).words) == 10
        await check_nothing_is_left(client)


async def test_a_drained_replica_ends_its_streams_and_stops() -> None:
    async with serving_cluster(THREE) as client:
        asking = [asyncio.create_task(streamed(client, TOKENS)) for _ in range(3)]
        await until(client, lambda now: replica(now, "all/0")["running_requests"] == 1)
        assert (await post(client, "/cluster/replicas/all/0/drain"))[1]["state"] == "draining"
        await hurry(client)
        answers = await asyncio.gather(*asking)
        await until(client, lambda now: replica(now, "all/0")["state"] == "stopped")
        await check_nothing_is_left(client)
    assert [len(answer.words) for answer in answers] == [TOKENS] * 3


@pytest.mark.parametrize("cluster", [THREE, APART, {**THREE, "router": {"requests_per_replica": 1}}])
async def test_clients_that_hang_up_leave_nothing_on_any_replica(cluster: dict[str, object]) -> None:
    async with serving_cluster(cluster) as client:
        responses = [await client.complete(max_tokens=1900, stream=True) for _ in range(3)]
        waiting = [asyncio.create_task(client.complete(max_tokens=1900).__aenter__()) for _ in range(3)]
        await until(client, lambda now: now["pending_requests"] + now["running_requests"] == 6)
        for response in responses:
            response.close()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await check_nothing_is_left(client)
        assert (await client.get("/status"))["aborted_requests"] == 6


async def test_one_too_many_for_the_cluster_is_429_with_retry_after() -> None:
    limited = {**THREE, "router": {"max_requests": 2}}
    async with serving_cluster(limited) as client:
        asking = [asyncio.create_task(streamed(client, 400)) for _ in range(2)]
        await until(client, lambda now: now["running_requests"] == 2)
        for stream in (True, False):
            async with client.complete(max_tokens=10, stream=stream) as response:
                assert response.status == 429
                assert response.headers["Retry-After"] == "1"
                error = (await response.json())["error"]
            assert error["code"] == "rate_limit_exceeded"
            assert "max_requests 2" in error["message"]
        await hurry(client)
        await asyncio.gather(*asking)
        assert len((await streamed(client, 10)).words) == 10
        assert (await client.get("/status"))["gateway"]["throttled_requests"] == 2


async def test_of_several_choices_one_too_many_takes_the_others_with_it() -> None:
    async with serving_cluster({**THREE, "router": {"max_requests": 2}}) as client:
        async with client.complete(max_tokens=1900, n=3) as response:
            assert response.status == 429
        await check_nothing_is_left(client)


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/cluster/replicas/all/7/kill", None, 404, "There is no replica all/7; there are all/0, all/1, all/2."),
        ("/cluster/replicas/all/0/kill", {"down_s": -1}, 400, "down_s"),
        ("/cluster/replicas/all/0/kill", {"for_s": 1}, 400, "for_s"),
        ("/cluster/replicas/all/0/revive", None, 409, "Replica all/0 is ready: there is nothing to revive."),
    ],
)
async def test_what_cannot_be_done_is_said(path: str, body: object, status: int, says: str) -> None:
    async with serving_cluster(THREE) as client:
        answer = await post(client, path, body)
        assert answer[0] == status
        assert says in answer[1]["error"]["message"]


async def test_orders_need_the_permission_admin() -> None:
    keys = "auth: {keys: [{key: chatter, permissions: [chat, models]}, {key: boss, permissions: [admin]}]}"
    async with serving_cluster(THREE, more=keys) as client:
        for key, status in (("chatter", 403), ("boss", 200)):
            headers = {"Authorization": f"Bearer {key}"}
            async with client.session.post("/cluster/replicas/all/0/kill", headers=headers) as response:
                assert response.status == status


async def test_a_page_of_another_site_kills_nobody() -> None:
    async with serving_cluster(THREE) as client:
        async with client.session.post("/cluster/replicas/all/0/kill", headers={"Origin": "http://evil"}) as response:
            assert response.status == 403
        assert replica(await client.get("/status"), "all/0")["state"] == "ready"


async def test_a_server_that_is_no_cluster_has_no_replicas(client: object) -> None:
    session: aiohttp.ClientSession = client.session  # type: ignore[attr-defined]
    async with session.post("/cluster/replicas/all/0/kill") as response:
        assert response.status == 404
        assert "no cluster" in (await response.json())["error"]["message"]
