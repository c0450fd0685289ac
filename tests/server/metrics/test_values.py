"""The numbers behind the names, worked out by hand."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.metrics.conftest import Server
from simserve.server.metrics.histogram import Histogram


async def test_tokens_and_the_prefix_cache(server: Server) -> None:
    prompt = [7] * 1000
    for _ in range(2):
        await server.complete(prompt=prompt, max_tokens=10)
    assert await server.total("vllm:prompt_tokens_total") == 2000
    assert await server.total("vllm:prefix_cache_hits_total") == 992  # whole blocks of 16, all but the last token
    assert await server.total("vllm:prompt_tokens_by_source_total", source="local_compute") == 1008
    assert await server.total("vllm:request_prefill_kv_computed_tokens_sum") == 1008
    # Two prompts in a step each, and nine steps of one decode for each.
    assert await server.total("vllm:iteration_tokens_total_sum") == 1008 + 18


async def test_times_add_up(server: Server) -> None:
    headers = {}
    async with server.session.post("/v1/completions", json={"prompt": "Once", "max_tokens": 30}) as response:
        headers = response.headers
    seconds = {
        name: await server.total(f"vllm:{name}_seconds_sum")
        for name in (
            "e2e_request_latency", "request_queue_time", "request_prefill_time", "request_decode_time",
            "request_inference_time", "inter_token_latency", "time_to_first_token", "request_time_per_output_token",
        )
    }  # fmt: skip
    assert seconds["e2e_request_latency"] == pytest.approx(float(headers["x-simserve-e2e-ms"]) / 1e3, abs=1e-5)
    assert seconds["time_to_first_token"] == pytest.approx(float(headers["x-simserve-ttft-ms"]) / 1e3, abs=1e-5)
    parts = seconds["request_queue_time"] + seconds["request_prefill_time"] + seconds["request_decode_time"]
    assert parts == pytest.approx(seconds["e2e_request_latency"])
    assert seconds["request_inference_time"] == pytest.approx(parts - seconds["request_queue_time"])
    assert seconds["inter_token_latency"] == pytest.approx(seconds["request_decode_time"])
    assert seconds["request_time_per_output_token"] == pytest.approx(seconds["request_decode_time"] / 29)


async def test_choices_of_a_request(server: Server) -> None:
    await server.complete(prompt=["a", "b"], n=3, max_tokens=4)
    assert await server.total("vllm:request_params_n_count") == 2  # two prompts
    assert await server.total("vllm:request_params_n_sum") == 6
    assert await server.total("vllm:request_max_num_generation_tokens_sum") == 8
    assert await server.total("vllm:request_generation_tokens_sum") == 24


async def test_requests_that_run_and_their_memory(server: Server) -> None:
    engine = server.service.engine
    engine.set_time_scale(1.0)  # type: ignore[attr-defined]
    asking = asyncio.create_task(server.complete(prompt=[5] * 1600, max_tokens=2000))
    while not engine.status().running_requests:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert await server.total("vllm:num_requests_running") == 1
    usage = await server.total("vllm:kv_cache_usage_perc")
    assert usage >= 100 / engine.status().kv_blocks_total
    async with server.session.get("/load") as response:
        assert await response.json() == {"server_load": 1}
    asking.cancel()
    while engine.status().running_requests:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert await server.total("vllm:request_success_total", finished_reason="abort") == 1
    async with server.session.get("/load") as response:
        assert await response.json() == {"server_load": 0}


async def test_paths_that_clients_make_up_are_no_labels(server: Server) -> None:
    for at in range(3):
        await server.session.get(f"/nothing/{at}")
        await server.session.get(f"/v1/models/{at}")
    samples = (await server.samples())["http_requests_total"]
    assert {dict(labels)["handler"] for labels in samples} == {"none", "/v1/models/{model}"}
    assert await server.total("http_requests_total", handler="none", status="4xx") == 3


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 9))), st.lists(st.floats(0, 100), min_size=1, unique=True))
def test_a_histogram_counts_each_value_up_to_its_bound(values: list[tuple[float, int]], bounds: list[float]) -> None:
    histogram = Histogram(sorted(bounds))
    for value, count in values:
        histogram.add(value, count)
    for bound, total in histogram.cumulative():
        assert total == sum(count for value, count in values if value <= float(bound))
    assert histogram.count == sum(count for _, count in values)
    assert histogram.sum == pytest.approx(sum(value * count for value, count in values))
