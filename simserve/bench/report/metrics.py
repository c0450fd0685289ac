"""Which latencies a report shows, and how many values a percentile needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simserve.bench.run import BenchRun

NAMES = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "itl": "ITL",
    "e2el": "E2EL",
    "ttft_scheduled": "TTFT scheduled",
    "e2el_scheduled": "E2EL scheduled",
    "token_itl": "ITL per token",
    "client_queue_time": "client queue",
    "e2el_including_client_queue": "E2EL with queue",
    "server_queue_time": "server queue",
    "server_ttft": "TTFT at server",
}
"""What latencies are called in tables."""

ON_REQUEST = ("ttft", "tpot", "itl", "e2el", "client_queue_time", "e2el_including_client_queue")
"""Those of --percentile-metrics, by vLLM's names."""

DEFAULT_METRICS = ("ttft", "tpot", "itl", "e2el")
POOLING_METRICS = ("e2el",)


def shown_metrics(run: BenchRun, asked: Sequence[str]) -> list[str]:
    """The latencies of a table: those asked for, and what the run has that nobody else shows."""
    have = run.figures.values_s
    from_schedule = [name for name in ("ttft_scheduled", "e2el_scheduled") if name.split("_")[0] in asked]
    told = [name for name in ("token_itl", "server_queue_time", "server_ttft") if len(have[name])]
    return [name for name in (*asked, *from_schedule, *told) if len(have[name])]


def is_trusted(count: int, percent: float) -> bool:
    """Whether ``count`` values are enough for a percentile: at least one must lie beyond it, for p99 a hundred."""
    beyond = min(percent, 100.0 - percent) / 100.0
    return percent in (0.0, 100.0) or count * beyond >= 1.0 - 1e-9


def confidence_ms(run: BenchRun, name: str) -> float:
    """Half the width of the 95 % confidence interval of a mean, in ms (normal approximation); NaN for one value.

    Values of one run are not quite independent, so this is a lower bound.
    """
    values = run.figures.values_s[name]
    if len(values) < 2:
        return math.nan
    return float(1.96 * values.std(ddof=1) / math.sqrt(len(values)) * 1e3)
