"""ORCA's load report in the headers of answers, for load balancers that ask for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from server.conftest import Client
from server.serving import FAST, serving


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving(FAST) as client:
        yield client


async def told(client: Client, form: str | None, path: str = "/v1/completions", **fields: object) -> str | None:
    headers = {} if form is None else {"endpoint-load-metrics-format": form}
    body = {"prompt": "x", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2, **fields}
    async with client.session.post(path, json=body, headers=headers) as response:
        await response.read()
        assert response.status == 200
        return response.headers.get("endpoint-load-metrics")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_who_asks_is_told_how_busy_the_engine_is(client: Client, path: str, stream: bool) -> None:
    text = await told(client, "text", path, stream=stream)
    assert text is not None
    kind, _, metrics = text.partition(" ")
    assert kind == "TEXT"
    named = dict(one.split("=") for one in metrics.split(", "))
    assert named.keys() == {"named_metrics.kv_cache_usage_perc", "named_metrics.num_requests_waiting"}
    as_json = await told(client, "JSON", path, stream=stream)
    assert as_json is not None
    load = json.loads(as_json.removeprefix("JSON "))["named_metrics"]
    assert 0 <= load["kv_cache_usage_perc"] <= 1
    assert load["num_requests_waiting"] >= 0


async def test_nobody_else_is_told_and_other_forms_are_unknown(client: Client) -> None:
    assert await told(client, None) is None
    assert await told(client, "BIN") is None
