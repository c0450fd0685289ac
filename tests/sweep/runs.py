"""Runs that cost nothing, for other processes to find by name."""

from __future__ import annotations

import os
import time

from simserve.errors import ConfigError
from simserve.metrics.result import Result
from simserve.sweep.settings import Settings


def fake(settings: Settings) -> Result:
    """A result that follows from the settings; ``max_num_seqs`` 13 cannot be, ``speed`` is how long it takes."""
    load, seqs = float(str(settings.get("request_rate") or 1.0)), int(str(settings.get("max_num_seqs") or 1))
    if seqs == 13:
        raise ConfigError("13 brings bad luck; choose another number")
    time.sleep(float(str(settings.get("speed") or 0.0)))
    latency = 100.0 * load / seqs
    names = ("mean", "median", "p50", "p90", "p99")
    latencies = {f"{name}_{metric}_ms": latency for name in names for metric in ("ttft", "tpot", "itl", "e2el")}
    return {
        "model": "some/model", "hardware_profile": str(settings.get("hardware")), "calibrated": True,
        "uncertainty": "±5%", "completed": 10, "failed": 0, "request_throughput": load, "output_throughput": 100 * load,
        "preemptions": 0, "kv_usage": 0.5, "busy_fraction": 1.0, "max_num_seqs": seqs, "mean_running_requests": 3.0,
        "max_concurrent_requests": 4, **latencies,
    }  # fmt: skip


def fake_that_kills_its_process(settings: Settings) -> Result:
    if settings.get("max_num_seqs") == 3:
        os._exit(9)
    return fake(settings)
