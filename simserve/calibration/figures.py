"""A measured run and its figures, and what the files call the metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.workload import Workload

Floats = npt.NDArray[np.float64]

LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E", "e2el": "E2E", "e2e_latency": "E2E"}
"""Names of latencies in files, and ours."""


@dataclass(frozen=True)
class Measured:
    """``statistic`` is "mean" or "p50" .. "p99" of a latency in seconds, or the "total" of a metric."""

    metric: str
    statistic: str
    value: float


@dataclass(frozen=True)
class MeasuredRun:
    """A workload, who sent it (``users`` at a time, or None: when due), and what was measured.

    ``latencies_s`` holds one value per request where the file gives them: by metric, for plots.
    ``settings`` is what the run says of its engine, by the names of :class:`simserve.config.EngineOptions`.
    """

    name: str
    workload: Workload
    users: int | None
    figures: list[Measured]
    latencies_s: dict[str, Floats] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
