"""The result as one flat JSON object under the keys of ``vllm bench serve``; what it has no keys for is under one."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simserve import __version__
from simserve.bench.measure.figures import Figures
from simserve.bench.measure.outcome import Outcome
from simserve.bench.report.lines import failure_sentences
from simserve.bench.report.metrics import ON_REQUEST, confidence_ms
from simserve.bench.run import BenchRun
from simserve.bench.self_test.measure import SelfTest
from simserve.errors import ConfigError
from simserve.metrics.distribution import Distribution
from simserve.metrics.result import percentile_name

OWN_KEY = "simserve"
FILE_TIME = "%Y%m%d-%H%M%S"


def result_object(
    run: BenchRun,
    metrics: Sequence[str],
    percentiles: Sequence[float],
    *,
    label: str | None = None,
    metadata: Mapping[str, str] | None = None,
    detailed: bool = False,
    self_test: SelfTest | None = None,
) -> dict[str, Any]:
    """Everything known of a run. Keys, units and order are vLLM's; what is ours stands under ``simserve``.

    As there, a latency that no request has is 0; ``simserve.values`` says how many each has.
    """
    result = _setup(run, label, metadata or {}) | _totals(run, detailed)
    for name in metrics:
        if name in ON_REQUEST:
            result |= _latency(name, run.figures.latency(name, percentiles), percentiles)
    if run.speculation is not None:
        result |= _speculation(run)
    return result | {OWN_KEY: _own(run, percentiles, self_test)}


def result_name(run: BenchRun, label: str | None) -> str:
    """The file's name, made as vLLM makes it."""
    shape = run.plan.shape
    tail = run.plan.model.rstrip("/").split("/")[-1]
    rate = "inf" if math.isinf(shape.request_rate) else f"{shape.request_rate}"
    concurrency = "" if shape.max_concurrency is None else f"-concurrency{shape.max_concurrency}"
    load = f"{rate}qps"
    if shape.ramp is not None:
        strategy, start, end = shape.ramp
        load = f"ramp-up-{strategy}-{start:g}qps-{end:g}qps"
    name = f"{label or run.plan.backend.name}-{load}{concurrency}-{tail}-{run.started.strftime(FILE_TIME)}.json"
    return name.replace(os.sep, "-")


def write_result(path: Path, result: Mapping[str, Any], *, append: bool = False) -> None:
    """Write ``result`` to ``path``, or add it as a further line; raises :class:`ConfigError` if that cannot be done."""
    text = json.dumps(result, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if append and path.exists() and path.stat().st_size:
            with path.open("a", encoding="utf-8") as file:
                file.write("\n" + text)
        else:
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}; give another --result-dir") from None


def _setup(run: BenchRun, label: str | None, metadata: Mapping[str, str]) -> dict[str, Any]:
    plan, shape = run.plan, run.plan.shape
    setup: dict[str, Any] = {
        "date": run.started.strftime(FILE_TIME),
        "endpoint_type": plan.backend.name,
        "backend": plan.backend.name,
        "label": label,
        "model_id": plan.model,
        "tokenizer_id": plan.tokenizer_id,
        "num_prompts": len(run.outcomes),
        **metadata,
        "request_rate": "inf" if math.isinf(shape.request_rate) else shape.request_rate,
        "burstiness": "inf" if math.isinf(shape.burstiness) else shape.burstiness,
        "max_concurrency": shape.max_concurrency,
    }
    if shape.ramp is not None:
        strategy, start, end = shape.ramp
        changes = [{"rps": change.rps, "timestamp": _instant(run, change.at_s)} for change in plan.schedule.changes]
        setup |= {
            "ramp_up_strategy": strategy, "ramp_up_start_rps": start, "ramp_up_end_rps": end,
            "rps_change_events": changes,
        }  # fmt: skip
    return setup


def _instant(run: BenchRun, at_s: float) -> str:
    from datetime import timedelta

    return (run.started + timedelta(seconds=at_s)).isoformat()


def _totals(run: BenchRun, detailed: bool) -> dict[str, Any]:
    figures, outcomes = run.figures, run.outcomes
    totals: dict[str, Any] = {"duration": figures.duration_s, "completed": figures.completed}
    if run.plan.backend.is_pooling:
        totals |= {
            "total_input_tokens": figures.total_input_tokens,
            "total_input_sequences": figures.total_sequences,
            "request_throughput": figures.request_throughput,
            "input_sequence_throughput": figures.total_sequences / figures.duration_s if figures.duration_s else 0.0,
            "total_token_throughput": figures.total_token_throughput,
            "failed": figures.failed,
        }
    else:
        totals |= {
            "failed": figures.failed,
            "total_input_tokens": figures.total_input_tokens,
            "total_output_tokens": figures.total_output_tokens,
            "request_throughput": figures.request_throughput,
            "request_goodput": figures.request_goodput,
            "output_throughput": figures.output_throughput,
            "total_token_throughput": figures.total_token_throughput,
            "max_output_tokens_per_s": figures.max_output_tokens_per_s,
            "max_concurrent_requests": figures.max_concurrent_requests,
            "rtfx": figures.audio_s / figures.duration_s if figures.duration_s else 0.0,
        }
    totals |= {
        "latencies": [one.e2el_s if one.ok else 0.0 for one in outcomes],
        "queue_times": [one.sent_s - one.due_s for one in outcomes],
    }
    return totals | (_details(run) if detailed else {})


def _details(run: BenchRun) -> dict[str, Any]:
    """One entry per request in each list, as vLLM has them: 0, empty or an error's text where it failed."""
    outcomes = run.outcomes
    details: dict[str, Any] = {
        "input_lens": [_input_tokens(run, one) for one in outcomes],
        "errors": [str(one.failure or "") for one in outcomes],
    }
    if run.plan.backend.is_pooling:
        return details
    return details | {
        "output_lens": [one.output_tokens or 0 if one.ok else 0 for one in outcomes],
        "ttfts": [_number(one.ttft_s) if one.ok else 0.0 for one in outcomes],
        "itls": [np.diff(np.asarray(one.token_times_s)).tolist() if one.ok else [] for one in outcomes],
        "start_times": [one.sent_s for one in outcomes],
        "generated_texts": [one.text for one in outcomes],
        "server_queue_times": [_or_none(one.server_queue_s) for one in outcomes],
        "server_ttfts": [_or_none(one.server_ttft_s) for one in outcomes],
    }


def _input_tokens(run: BenchRun, one: Outcome) -> int:
    return run.plan.sample_of(one.index).input_tokens if one.input_tokens is None else one.input_tokens


def _latency(name: str, values: Distribution, percentiles: Sequence[float]) -> dict[str, float]:
    points = {percentile_name(percent): value for percent, value in zip(percentiles, values.at, strict=True)}
    seconds = {"mean": values.mean, "median": values.median, "std": values.std, **points}
    return {f"{statistic}_{name}_ms": _number(value) * 1e3 for statistic, value in seconds.items()}


def _speculation(run: BenchRun) -> dict[str, Any]:
    speculation = run.speculation
    assert speculation is not None
    return {
        "spec_decode_acceptance_rate": speculation.acceptance_rate,
        "spec_decode_acceptance_length": speculation.acceptance_length,
        "spec_decode_num_drafts": speculation.drafts,
        "spec_decode_draft_tokens": speculation.draft_tokens,
        "spec_decode_accepted_tokens": speculation.accepted_tokens,
        "spec_decode_per_position_acceptance_rates": speculation.rates_at,
    }


def _own(run: BenchRun, percentiles: Sequence[float], self_test: SelfTest | None) -> dict[str, Any]:
    figures, plan, shape = run.figures, run.plan, run.plan.shape
    own: dict[str, Any] = {
        "version": __version__,
        "url": plan.server.address.url + plan.path,
        "dataset": plan.options.questions.dataset,
        "seed": plan.options.questions.seed,
        "duration_limit": shape.duration_s,
        "keeps_arrivals": shape.keeps_arrivals,
        "processes": plan.processes,
        "verdict": run.verdict.word,
        "reason": run.verdict.reason,
        "interrupted": run.load.was_interrupted,
        "tokens_counted_by": dict(run.counted),
        "tokens_estimated": run.is_estimated,
        "values": {name: len(values) for name, values in figures.values_s.items()},
        "confidence_95_ms": {name: _or_none(confidence_ms(run, name)) for name in figures.values_s},
        "latency_ms": {name: _all(figures, name, percentiles) for name in figures.values_s},
        "slo_share": figures.slo_share,
        "slos_ms": {name: limit_s * 1e3 for name, limit_s in run.slos_s.items()},
        "steady_state": _steady(run),
        "cached_tokens": figures.cached_tokens,
        "coalesced_chunks": figures.coalesced,
        "client": {
            "cpu_s": [one.cpu_s for one in run.load.health],
            "cpu_share": [_or_none(one.cpu_share) for one in run.load.health],
            "connections_opened": sum(one.connections_opened for one in run.load.health),
            "stale_connections": sum(one.stale_connections for one in run.load.health),
        },
        "failures": failure_sentences(run),
        "notes": list(run.notes),
    }
    if self_test is not None:
        own["self_test"] = self_test.as_object()
    return own


def _all(figures: Figures, name: str, percentiles: Sequence[float]) -> dict[str, float | None]:
    values = figures.latency(name, percentiles)
    at = {percentile_name(percent): value for percent, value in zip(percentiles, values.at, strict=True)}
    seconds = {"mean": values.mean, "median": values.median, "std": values.std, **at}
    return {statistic: _or_none(value * 1e3) for statistic, value in seconds.items()}


def _steady(run: BenchRun) -> dict[str, float | None] | None:
    steady = run.steady
    if steady is None:
        return None
    return {
        "start_s": steady.start_s,
        "end_s": steady.end_s,
        "requests": steady.requests,
        "request_throughput": steady.request_throughput,
        "output_throughput": steady.output_throughput,
        "mean_ttft_ms": _or_none(steady.ttft.mean * 1e3),
        "p99_ttft_ms": _or_none(steady.ttft.at[0] * 1e3),
        "mean_e2el_ms": _or_none(steady.e2el.mean * 1e3),
        "p99_e2el_ms": _or_none(steady.e2el.at[0] * 1e3),
    }


def _number(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
