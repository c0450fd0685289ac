"""What is made for vLLM's metrics finds them here: the names that dashboards query, their labels and their buckets."""

from __future__ import annotations

import asyncio

import pytest

from server.metrics.conftest import Server
from simserve.server.metrics import buckets

MOVING = [
    "vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total",
    *(
        f"vllm:{name}_{part}"
        for name in (
            "e2e_request_latency_seconds", "time_to_first_token_seconds", "inter_token_latency_seconds",
            "request_time_per_output_token_seconds", "request_prompt_tokens", "request_generation_tokens",
            "request_max_num_generation_tokens", "request_params_max_tokens", "request_params_n",
            "request_prefill_time_seconds", "request_decode_time_seconds", "request_inference_time_seconds",
            "request_prefill_kv_computed_tokens", "iteration_tokens_total",
        )
        for part in ("bucket", "sum", "count")
    ),
    "vllm:request_queue_time_seconds_count", "vllm:request_num_preemptions_count",
    "vllm:prefix_cache_queries_total", "vllm:prompt_tokens_by_source_total",
    "http_requests_total", "http_request_duration_seconds_count", "http_request_duration_highr_seconds_count",
]  # fmt: skip
"""Queried by vLLM's dashboards in examples/observability, and the rest of its counters and histograms."""

STANDING = [
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason",
    "vllm:kv_cache_usage_perc", "vllm:engine_sleep_state", "vllm:cache_config_info",
    "vllm:prefix_cache_hits_total", "vllm:prompt_tokens_cached_total", "vllm:prompt_tokens_cached_by_source_total",
    "vllm:num_preemptions_total", "vllm:request_queue_time_seconds_sum", "vllm:request_num_preemptions_sum",
    "vllm:external_prefix_cache_queries_total", "vllm:external_prefix_cache_hits_total",
    "vllm:mm_cache_queries_total", "vllm:mm_cache_hits_total",
    "process_resident_memory_bytes", "process_open_fds", "simserve:clock_seconds", "simserve:time_scale",
]  # fmt: skip
"""Must be there too, whatever they say when little happens."""


async def test_every_name_is_there_and_what_should_move_moves(server: Server) -> None:
    before = await server.samples()
    await server.complete(max_tokens=20)
    await server.complete(max_tokens=20, stream=True)
    after = await server.samples()
    for name in STANDING:
        assert name in after, name
    for name in MOVING:
        assert sum(after[name].values()) > sum(before.get(name, {}).values()), name


async def test_labels_are_the_models_name_and_the_engine(server: Server) -> None:
    where = {("model_name", server.service.model), ("engine", "0")}
    for name, samples in (await server.samples()).items():
        if name.startswith("vllm:") and name != "vllm:cache_config_info":
            assert all(where <= labels for labels in samples), name


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("time_to_first_token_seconds", buckets.TTFT_S),
        ("inter_token_latency_seconds", buckets.TOKEN_S),
        ("e2e_request_latency_seconds", buckets.REQUEST_S),
        ("request_queue_time_seconds", buckets.REQUEST_S),
        ("request_params_n", buckets.CHOICES),
        ("iteration_tokens_total", buckets.STEP_TOKENS),
    ],
)
async def test_buckets_are_vllms(server: Server, name: str, bounds: tuple[float, ...]) -> None:
    labels = (await server.samples())[f"vllm:{name}_bucket"]
    found = {dict(one)["le"] for one in labels}
    assert found == {*(str(float(bound)) for bound in bounds), "+Inf"}


def test_token_buckets_go_as_far_as_the_window() -> None:
    assert buckets.tokens_up_to(100) == [1, 2, 5, 10, 20, 50, 100]
    assert buckets.tokens_up_to(131_072)[-1] == 100_000


async def test_open_metrics_are_given_to_who_asks(server: Server) -> None:
    headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with server.session.get("/metrics", headers=headers) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        assert (await response.text()).endswith("# EOF\n")


async def test_many_at_once_all_count(server: Server) -> None:
    await asyncio.gather(*(server.complete(max_tokens=5) for _ in range(20)))
    assert await server.total("vllm:request_success_total", finished_reason="length") == 20
    assert await server.total("vllm:generation_tokens_total") == 100
    assert await server.total("vllm:inter_token_latency_seconds_count") == 80
