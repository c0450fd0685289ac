"""Failures on purpose: as many as asked for, only when switched on, and recognisable."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from server.conftest import Client
from server.serving import FAST, serving


async def statuses(client: Client, count: int) -> Counter[int]:
    counted: Counter[int] = Counter()
    for _ in range(count):
        async with client.chat(max_tokens=1) as response:
            counted[response.status] += 1
            assert (response.status == 200) != ("x-simserve-failure" in response.headers)
    return counted


async def test_a_share_of_requests_fails_and_the_same_ones_again() -> None:
    text = f"{FAST}failures: {{rate: 0.3, statuses: [503, 429], seed: 1}}"
    async with serving(text) as client:
        first = await statuses(client, 100)
    assert set(first) == {200, 429, 503}
    assert 15 <= first[503] + first[429] <= 45
    async with serving(text) as client:
        assert await statuses(client, 100) == first


@pytest.mark.parametrize(("rate", "expected"), [(0, 200), (1, 500)])
async def test_none_and_all(rate: int, expected: int) -> None:
    async with serving(f"{FAST}failures: {{rate: {rate}, statuses: [500]}}") as client:
        assert await statuses(client, 5) == {expected: 5}
        async with client.session.get("/v1/models") as response:
            assert response.status == 200  # only what generates fails


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503, 529])
async def test_a_client_may_ask_for_a_failure(status: int) -> None:
    async with serving(f"{FAST}failures: {{enabled: true}}") as client:
        client.session.headers["X-Return-Error"] = str(status)
        async with client.chat(stream=True) as response:
            assert response.status == status
            assert (await response.json())["error"]["code"] == "injected_failure"
            assert ("Retry-After" in response.headers) == (status in (429, 503))


@pytest.mark.parametrize("asked", ["200", "600", "teapot", ""])
async def test_a_status_that_is_no_failure(asked: str) -> None:
    async with serving(f"{FAST}failures: {{enabled: true}}") as client:
        client.session.headers["X-Return-Error"] = asked
        async with client.chat() as response:
            assert response.status == 400
            assert "from 400 to 599" in (await response.json())["error"]["message"]


@pytest.mark.parametrize("text", [FAST, f"{FAST}failures: {{enabled: false}}"])
async def test_nobody_can_ask_where_it_is_switched_off(text: str) -> None:
    async with serving(text) as client:
        client.session.headers["X-Return-Error"] = "500"
        assert await _status(client) == 200


async def test_latency_jitter_holds_requests_up() -> None:
    async with serving(f"{FAST}failures: {{latency_jitter: 100 ms, seed: 3}}") as client:
        start = time.monotonic()
        for _ in range(10):
            assert await _status(client) == 200
        assert time.monotonic() - start > 0.3  # the ten draws of this seed sum up to 0.49 s


async def _status(client: Client) -> int:
    async with client.chat(max_tokens=1) as response:
        return int(response.status)
