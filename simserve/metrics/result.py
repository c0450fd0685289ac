"""A run as one flat object under the keys of ``vllm bench serve``, so that its readers can read ours."""

from __future__ import annotations

import math
from dataclasses import asdict

from simserve.metrics.bands import Bands
from simserve.metrics.bill import bill_keys, bill_of
from simserve.metrics.distribution import Distribution
from simserve.metrics.records import RunDescription
from simserve.metrics.summary import Summary, utilisation

Result = dict[str, str | int | float | bool | None]

KEY_NAMES = {"TTFT": "ttft", "TPOT": "tpot", "ITL": "itl", "E2E": "e2el"}
"""Latencies as they are called in keys."""

NOT_LABELS = (
    "peak_flops", "peak_bandwidth_bytes_per_s", "formats", "peak_w", "idle_w", "usd_per_hour", "price_source",
    "devices",
)  # fmt: skip
"""Fields of a description that are facts of the profile, not of the run, or say for people what others say."""


def result_object(summary: Summary, description: RunDescription, bands: Bands) -> Result:
    """Everything known of a run, ready for JSON: latencies in ms, None for a latency that no request has.

    A figure that has a band is followed by two more, its key with ``_low`` and ``_high``. Holds no date and no
    wall-clock time: the same run gives the same bytes.
    """
    return {**common_keys(summary, description.model, bands), **_own(summary, description), "bands": bands.basis}


def common_keys(summary: Summary, model: str, bands: Bands) -> Result:
    """What every run has, on one engine or many: under the keys of ``vllm bench serve``, with bands."""
    plain = {**_as_vllm(summary, model), **_latencies(summary)}
    result: Result = {}
    for key, value in plain.items():
        result[key] = value
        if key in bands.by_key:
            result[f"{key}_low"], result[f"{key}_high"] = bands.by_key[key].low, bands.by_key[key].high
    return result


def predicted_figures(summary: Summary) -> dict[str, float | None]:
    """The figures of a run that its step times decide, under their keys in the result: those that have bands."""
    return {
        "duration": summary.totals.duration_s,
        "request_throughput": summary.request_throughput,
        "output_throughput": summary.output_throughput,
        "total_token_throughput": summary.total_token_throughput,
        **_latencies(summary),
    }


def latency_key(statistic: str, metric: str) -> str:
    """The key of a latency: ``p99_ttft_ms`` for ("p99", "TTFT"); E2E is called e2el, as by ``vllm bench serve``."""
    return f"{statistic}_{KEY_NAMES[metric]}_ms"


def percentile_name(percent: float) -> str:
    """``p99`` for 99.0, ``p99.9`` for 99.9."""
    return f"p{percent:g}"


def _as_vllm(summary: Summary, model: str) -> Result:
    return {
        "backend": "simserve",
        "model_id": model,
        "num_prompts": summary.completed + summary.failed,
        "duration": summary.totals.duration_s,
        "completed": summary.completed,
        "failed": summary.failed,
        "total_input_tokens": summary.total_input_tokens,
        "total_output_tokens": summary.total_output_tokens,
        "request_throughput": summary.request_throughput,
        "output_throughput": summary.output_throughput,
        "total_token_throughput": summary.total_token_throughput,
        "max_concurrent_requests": summary.max_concurrent_requests,
    }


def _latencies(summary: Summary) -> dict[str, float | None]:
    metrics = {"TTFT": summary.ttft, "TPOT": summary.tpot, "ITL": summary.itl, "E2E": summary.e2e}
    keys: dict[str, float | None] = {}
    for name, values in metrics.items():
        keys |= _latency(name, values, summary.percentiles)
    return keys


def _latency(name: str, values: Distribution, percentiles: tuple[float, ...]) -> dict[str, float | None]:
    points = {percentile_name(percent): value for percent, value in zip(percentiles, values.at, strict=True)}
    seconds = {"mean": values.mean, "median": values.median, "std": values.std, **points}
    return {latency_key(statistic, name): _milliseconds(value) for statistic, value in seconds.items()}


def tokens_of(summary: Summary) -> tuple[int, int]:
    """(of prompts, of answers)."""
    return summary.total_input_tokens, summary.total_output_tokens


def _milliseconds(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds * 1000.0


def _own(summary: Summary, description: RunDescription) -> Result:
    totals, used = summary.totals, utilisation(summary.totals, description)
    labels = {name: value for name, value in asdict(description).items() if name not in NOT_LABELS}
    return {
        **labels,
        "peak_kv_blocks_used": totals.peak_kv_blocks_used,
        "kv_usage": used.kv,
        "preemptions": totals.preemptions,
        "prefix_cache_hit_rate": summary.prefix_cache_hit_rate,
        "cached_tokens": totals.cached_tokens,
        "computed_prefill_tokens": totals.computed_prefill_tokens,
        "compute_utilization": used.compute,
        "bandwidth_utilization": used.bandwidth,
        "busy_fraction": used.busy,
        "front_end_utilization": used.front_end if description.api_server_count else None,
        "mean_running_requests": totals.mean_running_requests,
        "steps": totals.steps,
        "aborted": summary.aborted,
        "rejected": summary.rejected,
        **bill_keys(bill_of(totals, description, totals.duration_s), summary.completed, tokens_of(summary)),
    }
