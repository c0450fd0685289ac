"""Every metric: its name, what it means, and where its value is. Names, labels and kinds are vLLM 0.33's.

Prometheus adds ``_total`` to the names of counters. ``vllm:`` counts simulated time and tokens; ``simserve:`` is about
this server itself, on the wall's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from simserve.engines.base import EngineStatus
from simserve.engines.controls import Paced, Sleeps
from simserve.engines.live_replica import LiveReplica
from simserve.server.metrics.engine_metrics import EngineMetrics
from simserve.server.metrics.histogram import Histogram

Value = float | Mapping[str, float]
"""One number, or one by value of the metric's own label."""


class Counter(NamedTuple):
    """Something that only grows."""

    name: str
    help: str
    value: Callable[[EngineMetrics], Value]
    label: str | None = None


class Gauge(NamedTuple):
    """Something that goes up and down, looked up when asked."""

    name: str
    help: str
    value: Callable[[EngineMetrics, EngineStatus], Value]
    label: str | None = None


class Distribution(NamedTuple):
    """A histogram."""

    name: str
    help: str
    histogram: Callable[[EngineMetrics], Histogram]


def _sleep_state(metrics: EngineMetrics, _: EngineStatus) -> Value:
    level = metrics.engine.sleep_level if isinstance(metrics.engine, Sleeps) else None
    return {
        "awake": float(level is None),
        "weights_offloaded": float(level == 1),
        "discard_all": float(level == 2),
    }


def _paced(value: Callable[[Paced], float]) -> Callable[[EngineMetrics, EngineStatus], Value]:
    """Of an engine that goes by a clock that can be held; others have no such metric."""
    return lambda metrics, _: value(metrics.engine) if isinstance(metrics.engine, Paced) else {}


GAUGES = (
    Gauge("vllm:num_requests_running", "Requests in the running batch.", lambda _, now: now.running_requests),
    Gauge("vllm:num_requests_waiting", "Requests waiting to be processed.", lambda _, now: now.waiting_requests),
    Gauge(
        "vllm:num_requests_waiting_by_reason",
        "Requests waiting to be processed, by what they wait for.",
        lambda _, now: {"capacity": now.waiting_requests, "deferred": 0},
        "reason",
    ),
    Gauge(
        "vllm:kv_cache_usage_perc",
        "Share of the KV blocks in use; 1 is all.",
        lambda _, now: now.kv_blocks_used / now.kv_blocks_total,
    ),
    Gauge("vllm:engine_sleep_state", "Whether the engine is awake or how it sleeps.", _sleep_state, "sleep_state"),
    Gauge("simserve:time_scale", "Simulated seconds per second.", _paced(lambda engine: engine.clock.time_scale)),
    Gauge("simserve:paused", "Whether the simulated clock is held.", _paced(lambda engine: engine.clock.is_paused)),
    Gauge(
        "simserve:replica_state",
        "What a replica of a cluster does.",
        lambda metrics, _: {metrics.part.state: 1.0} if isinstance(metrics.part, LiveReplica) else {},
        "state",
    ),
    Gauge("simserve:clock_seconds", "Simulated seconds since the start.", lambda _, now: now.clock_s),
)

COUNTERS = (
    Counter("vllm:prompt_tokens", "Prompt tokens processed.", lambda m: m.prompt_tokens),
    Counter("vllm:generation_tokens", "Tokens generated.", lambda m: m.generation_tokens),
    Counter("vllm:prompt_tokens_cached", "Prompt tokens found in the prefix cache.", lambda m: m.cached_tokens),
    Counter(
        "vllm:prompt_tokens_by_source",
        "Prompt tokens by where their KV came from.",
        lambda m: {
            "local_compute": m.prompt_tokens - m.cached_tokens,
            "local_cache_hit": m.cached_tokens,
            "external_kv_transfer": 0,
        },
        "source",
    ),
    Counter(
        "vllm:prompt_tokens_cached_by_source",
        "Cached prompt tokens by tier.",
        lambda m: {"device": m.cached_tokens},
        "source",
    ),
    Counter("vllm:num_preemptions", "Preemptions.", lambda m: m.preemptions),
    Counter("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", lambda m: m.prompt_tokens),
    Counter("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache.", lambda m: m.cached_tokens),
    Counter("vllm:external_prefix_cache_queries", "Tokens looked up in other engines' caches: none.", lambda m: 0),
    Counter("vllm:external_prefix_cache_hits", "Tokens found in other engines' caches: none.", lambda m: 0),
    Counter("vllm:mm_cache_queries", "Images and sounds looked up in the cache: none.", lambda m: 0),
    Counter("vllm:mm_cache_hits", "Images and sounds found in the cache: none.", lambda m: 0),
    Counter(
        "simserve:replica_failures",
        "How often a replica of a cluster has failed.",
        lambda m: m.part.failures if isinstance(m.part, LiveReplica) else {},
    ),
    Counter("vllm:request_success", "Requests ended, by reason.", lambda m: m.ended_by_reason, "finished_reason"),
)

DISTRIBUTIONS = (
    Distribution("vllm:time_to_first_token_seconds", "Arrival to first token.", lambda m: m.ttft_s),
    Distribution("vllm:inter_token_latency_seconds", "Between consecutive tokens.", lambda m: m.itl_s),
    Distribution("vllm:request_time_per_output_token_seconds", "Mean per token after the first.", lambda m: m.tpot_s),
    Distribution("vllm:e2e_request_latency_seconds", "Arrival to last token.", lambda m: m.e2e_s),
    Distribution("vllm:request_queue_time_seconds", "Arrival to first step.", lambda m: m.queue_s),
    Distribution("vllm:request_inference_time_seconds", "First step to last token.", lambda m: m.inference_s),
    Distribution("vllm:request_prefill_time_seconds", "First step to first token.", lambda m: m.prefill_s),
    Distribution("vllm:request_decode_time_seconds", "First to last token.", lambda m: m.decode_s),
    Distribution("vllm:request_prompt_tokens", "Prompt tokens of a request.", lambda m: m.request_prompt_tokens),
    Distribution("vllm:request_generation_tokens", "Tokens generated.", lambda m: m.request_generation_tokens),
    Distribution(
        "vllm:request_max_num_generation_tokens", "Tokens of the longest choice.", lambda m: m.most_generation_tokens
    ),
    Distribution("vllm:request_params_max_tokens", "The limit `max_tokens`.", lambda m: m.request_max_tokens),
    Distribution("vllm:request_params_n", "The number of choices `n`.", lambda m: m.request_choices),
    Distribution(
        "vllm:request_prefill_kv_computed_tokens",
        "Prompt tokens that were not cached.",
        lambda m: m.request_computed_tokens,
    ),
    Distribution("vllm:request_num_preemptions", "Preemptions of a request.", lambda m: m.request_preemptions),
    Distribution("vllm:iteration_tokens_total", "Tokens computed by a step of the engine.", lambda m: m.step_tokens),
)
