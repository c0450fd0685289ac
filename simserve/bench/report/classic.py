"""The block of 50 columns that ``vllm bench serve`` prints, label by label: scripts look for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from simserve.bench.run import BenchRun
from simserve.metrics.result import percentile_name

WIDTH, LABEL = 50, 40

TITLES = {
    "ttft": ("Time to First Token", "TTFT"),
    "tpot": ("Time per Output Token (excl. 1st token)", "TPOT"),
    "itl": ("Inter-token Latency", "ITL"),
    "e2el": ("End-to-end Latency", "E2EL"),
    "client_queue_time": ("Client Queue Time", "CLIENT_QUEUE_TIME"),
    "e2el_including_client_queue": ("E2EL Including Client Queue", "E2EL_INCLUDING_CLIENT_QUEUE"),
}


def classic_report(run: BenchRun, metrics: Sequence[str], percentiles: Sequence[float]) -> str:
    """The block as text, closing line included."""
    lines = [f"{' Serving Benchmark Result ':=^{WIDTH}}", *_totals(run)]
    for name in metrics:
        if name in TITLES:
            lines += _latency(run, name, percentiles)
    if run.speculation is not None:
        lines += [f"{'Speculative Decoding':-^{WIDTH}}"]
        lines += [
            _line("Acceptance rate (%):", run.speculation.acceptance_rate),
            _line("Acceptance length:", run.speculation.acceptance_length),
            _line("Drafts:", run.speculation.drafts),
            _line("Draft tokens:", run.speculation.draft_tokens),
            _line("Accepted tokens:", run.speculation.accepted_tokens),
        ]
    return "\n".join([*lines, "=" * WIDTH])


def _totals(run: BenchRun) -> Iterator[str]:
    figures, shape = run.figures, run.plan.shape
    yield _line("Successful requests:", figures.completed)
    yield _line("Failed requests:", figures.failed)
    if shape.max_concurrency is not None:
        yield _line("Maximum request concurrency:", shape.max_concurrency)
    if math.isfinite(shape.request_rate):
        yield _line("Request rate configured (RPS):", shape.request_rate)
    yield _line("Benchmark duration (s):", figures.duration_s)
    yield _line("Total input tokens:", figures.total_input_tokens)
    if not run.plan.backend.is_pooling:
        yield _line("Total generated tokens:", figures.total_output_tokens)
    yield _line("Request throughput (req/s):", figures.request_throughput)
    if figures.request_goodput is not None:
        yield _line("Request goodput (req/s):", figures.request_goodput)
    if not run.plan.backend.is_pooling:
        yield _line("Output token throughput (tok/s):", figures.output_throughput)
        yield _line("Peak output token throughput (tok/s):", figures.max_output_tokens_per_s)
    yield _line("Peak concurrent requests:", float(figures.max_concurrent_requests))
    if figures.audio_s and figures.duration_s:
        yield _line("RTFx (Inverse Real-Time Factor):", figures.audio_s / figures.duration_s)
    yield _line("Total token throughput (tok/s):", figures.total_token_throughput)


def _latency(run: BenchRun, name: str, percentiles: Sequence[float]) -> Iterator[str]:
    """Mean, median and percentiles; 0 where no request has this latency, as vLLM prints it."""
    title, short = TITLES[name]
    values = run.figures.latency(name, percentiles)
    yield f"{title:-^{WIDTH}}"
    yield _line(f"Mean {short} (ms):", _ms(values.mean))
    yield _line(f"Median {short} (ms):", _ms(values.median))
    for percent, value in zip(percentiles, values.at, strict=True):
        yield _line(f"{percentile_name(percent).upper()} {short} (ms):", _ms(value))


def _ms(seconds: float) -> float:
    return 0.0 if math.isnan(seconds) else seconds * 1e3


def _line(label: str, value: float) -> str:
    return f"{label:<{LABEL}} {value:<10.2f}" if isinstance(value, float) else f"{label:<{LABEL}} {value:<10}"
