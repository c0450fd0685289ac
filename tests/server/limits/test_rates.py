"""Limits of a key: so many requests and tokens a minute, told as OpenAI tells it."""

from __future__ import annotations

import pytest
from aiohttp import ClientResponse
from hypothesis import given
from hypothesis import strategies as st

from server.conftest import Client
from server.serving import FAST, serving
from simserve.server.limits.buckets import Bucket
from simserve.server.limits.rates import duration

LIMITS = f"""
{FAST}
auth:
  tokens_per_minute: 6000
  keys:
  - {{key: sk-few, requests_per_minute: 3}}
  - {{key: sk-small, tokens_per_minute: 100}}
  - {{key: sk-other, permissions: [models], requests_per_minute: 1}}
"""


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def ask(client: Client, tokens: int = 1, prompt: int = 1) -> ClientResponse:
    async with client.complete(prompt=[5] * prompt, max_tokens=tokens) as response:
        await response.read()
        return response


async def test_one_request_too_many_is_429_and_others_are_not_affected() -> None:
    async with serving(LIMITS, bearer("sk-few")) as client:
        answers = [await ask(client) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0"]
        refused = answers[-1]
        error = (await refused.json())["error"]
        assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
        assert refused.headers["x-ratelimit-limit-requests"] == "3"
        assert 1 <= int(refused.headers["Retry-After"]) <= 20
        assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
        async with client.session.get("/v1/models") as models:  # costs nothing
            assert models.status == 200
            assert "x-ratelimit-limit-requests" not in models.headers
        async with client.session.post("/v1/completions", json={"prompt": "x"}, headers=bearer("sk-small")) as response:
            assert response.status == 200


async def test_tokens_of_prompt_and_answer_count() -> None:
    async with serving(LIMITS, bearer("sk-small")) as client:
        first, second, third = [await ask(client, prompt=20, tokens=30) for _ in range(3)]
        assert [answer.status for answer in (first, second, third)] == [200, 200, 429]
        assert first.headers["x-ratelimit-limit-tokens"] == "100"
        assert 50 <= int(first.headers["x-ratelimit-remaining-tokens"]) <= 60
        error = (await third.json())["error"]
        assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")
        assert 1 <= int(third.headers["Retry-After"]) <= 30


async def test_more_than_a_minute_s_worth_is_refused_for_good() -> None:
    async with serving(LIMITS, bearer("sk-small")) as client:
        answer = await ask(client, tokens=200)
        assert answer.status == 429
        assert "more than this key's limit of 100" in (await answer.json())["error"]["message"]
        assert "Retry-After" not in answer.headers
        assert answer.headers["x-ratelimit-remaining-tokens"] == "100"


async def test_the_limit_of_all_keys_holds_where_a_key_has_none() -> None:
    async with serving(LIMITS, bearer("sk-few")) as client:
        assert (await ask(client)).headers["x-ratelimit-limit-tokens"] == "6000"


async def test_a_stream_carries_the_headers_too() -> None:
    async with (
        serving(LIMITS, bearer("sk-small")) as client,
        client.complete(prompt=[5] * 10, max_tokens=30, stream=True) as response,
    ):
        assert 60 <= int(response.headers["x-ratelimit-remaining-tokens"]) <= 70


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.12, "120ms"), (1, "1s"), (6.5, "6.5s"), (90, "1m30s"), (360, "6m0s")]
)
def test_durations_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1200)), max_size=40),
)
def test_no_minute_gives_more_than_the_bucket_and_its_filling(limit: int, asked: list[tuple[float, int]]) -> None:
    bucket = Bucket.full(limit, 0.0)
    now_s = granted = 0.0
    for gap_s, count in asked:
        now_s += gap_s
        wait_s = bucket.seconds_until(count, now_s)
        took = bucket.take(count, now_s)
        assert took == (wait_s == 0)
        granted += count * took
        assert 0 <= bucket.level <= limit
    assert granted <= limit + now_s * limit / 60 + 1e-6


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_who_waits_as_told_is_let_in(limit: int, count: int) -> None:
    bucket = Bucket.full(limit, 0.0)
    assert bucket.take(limit, 0.0)
    wait_s = bucket.seconds_until(count, 0.0)
    assert (wait_s == float("inf")) == (count > limit)
    if count <= limit:
        assert bucket.take(count, wait_s + 1e-6)
