"""What the processes of a run tell while it is on: a few numbers and two histograms each, in shared memory.

No locks: each process writes its own row, a reader may see one that is half written and will see it whole the next
time. The truth comes after the run, from the bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from typing import Any

import numpy as np
import numpy.typing as npt

FIELDS = ("sent", "in_flight", "done", "failed", "events", "lag_s", "loop_lag_s", "cpu_s")
BINS = 160
PER_DECADE = 20
LEAST_S = 1e-4
"""Histograms reach from 0.1 ms to 10,000 s in steps of 12 %."""


@dataclass(frozen=True)
class Progress:
    """Where all processes together are. ``ttft`` and ``itl`` are histograms: of first events, and of each finished
    answer's mean gap between reads.

    ``is_stopping`` once Ctrl-C was pressed: nothing more is sent, and answers under way are waited for.
    """

    sent: int
    in_flight: int
    done: int
    failed: int
    events: int
    lag_s: float
    loop_lag_s: float
    cpu_s: float
    ttft: npt.NDArray[np.float64]
    itl: npt.NDArray[np.float64]
    is_stopping: bool = False


class Counters:
    """One row per process in memory that all share."""

    def __init__(self, processes: int, memory: Any) -> None:
        self.memory = memory
        self._rows = np.frombuffer(memory, dtype=np.float64).reshape(processes, self.width())

    @staticmethod
    def width() -> int:
        """Numbers in one row."""
        return len(FIELDS) + 2 * BINS

    @classmethod
    def make(cls, context: SpawnContext, processes: int) -> Counters:
        """New counters, all zero."""
        return cls(processes, context.RawArray("d", processes * cls.width()))

    def write(self, row: int, values: Sequence[float], ttft: Sequence[int], itl: Sequence[int]) -> None:
        """Replace the numbers of process ``row``; ``values`` are in the order of :data:`FIELDS`."""
        self._rows[row] = [*values, *ttft, *itl]

    def read(self) -> Progress:
        """All processes together: sums, and of the lags the worst."""
        rows = self._rows.copy()
        total, worst = rows.sum(axis=0), rows.max(axis=0)
        named = dict(zip(FIELDS, total, strict=False))
        first = len(FIELDS)
        return Progress(
            sent=int(named["sent"]),
            in_flight=int(named["in_flight"]),
            done=int(named["done"]),
            failed=int(named["failed"]),
            events=int(named["events"]),
            lag_s=float(worst[FIELDS.index("lag_s")]),
            loop_lag_s=float(worst[FIELDS.index("loop_lag_s")]),
            cpu_s=float(named["cpu_s"]),
            ttft=total[first : first + BINS],
            itl=total[first + BINS :],
        )


def bin_of(seconds: float) -> int:
    """The bin that counts a latency."""
    if seconds <= LEAST_S:
        return 0
    return min(int(PER_DECADE * math.log10(seconds / LEAST_S)), BINS - 1)


def quantile(histogram: npt.NDArray[np.float64], share: float) -> float:
    """The latency that ``share`` of the counted ones do not exceed, to a bin's width; NaN where none was counted."""
    total = histogram.sum()
    if not total:
        return math.nan
    place = int(np.searchsorted(np.cumsum(histogram), share * total))
    return float(LEAST_S * 10 ** ((min(place, BINS - 1) + 0.5) / PER_DECADE))
