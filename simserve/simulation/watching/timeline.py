"""What each replica did over time, in as many equal stretches of time as a plot has room for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from simserve.scheduling import Request, Scheduler
from simserve.simulation.replica import Run

Floats = npt.NDArray[np.float64]

MOST_BINS = 512
FIRST_WIDTH_S = 1 / 64

QUEUE, BATCH, KV, TOKENS = range(4)


@dataclass
class Series:
    """One replica: a row each of waiting and running requests, share of KV blocks in use, all three times seconds, and
    tokens computed; a column per bin."""

    name: str
    sums: Floats = field(default_factory=lambda: np.zeros((4, MOST_BINS)))


class Timeline:
    """Bins of ``width_s``, at most :data:`MOST_BINS`: when time goes on beyond them, two become one. Memory is 16 kB
    for each replica, however long the run.

    What a scheduler is asked for is how it stands after a run, which stands for the time of that run.
    """

    def __init__(self) -> None:
        self.width_s = FIRST_WIDTH_S
        self.end_s = 0.0
        self.series: dict[int, Series] = {}

    def ran(self, index: int, name: str, scheduler: Scheduler, run: Run) -> None:
        """See :class:`~simserve.simulation.watching.watcher.Watcher`."""
        series = self.series.get(index)
        if series is None:
            series = self.series[index] = Series(name)
        self.end_s = max(self.end_s, run.end_s)
        while run.end_s >= self.width_s * MOST_BINS:
            self._merge()
        plan, blocks = run.plan, scheduler.blocks
        duration_s = run.end_s - run.start_s
        if duration_s <= 0:
            return
        batch = plan.num_decodes - plan.padding + len(plan.chunks)
        tokens = (plan.num_decodes - plan.padding + plan.prefill_tokens) * plan.repeat
        level = (len(scheduler.waiting), batch, blocks.used_blocks / blocks.usable_blocks, tokens / duration_s)
        first, last = int(run.start_s / self.width_s), int(run.end_s / self.width_s)
        for place in range(first, last + 1):
            start_s = max(run.start_s, place * self.width_s)
            end_s = min(run.end_s, (place + 1) * self.width_s)
            for row, value in enumerate(level):
                series.sums[row, place] += value * (end_s - start_s)

    def ended(self, index: int, request: Request) -> None:
        """Of no interest; see :class:`~simserve.simulation.watching.watcher.Watcher`."""

    def transferred(self, link: str, request: Request, size_bytes: float, start_s: float, end_s: float) -> None:
        """Of no interest; see :class:`~simserve.simulation.watching.watcher.Watcher`."""

    def started(self, index: int, name: str, weight_bytes: int, times_s: tuple[float, float, float]) -> None:
        """Of no interest; see :class:`~simserve.simulation.watching.watcher.Watcher`."""

    @property
    def bins(self) -> int:
        """How many there are, the last of them perhaps not full."""
        return min(MOST_BINS, int(self.end_s / self.width_s) + 1)

    @property
    def times_s(self) -> Floats:
        """The middle of each bin."""
        return (np.arange(self.bins, dtype=np.float64) + 0.5) * np.float64(self.width_s)

    def mean(self, index: int, row: int) -> Floats:
        """Of replica ``index``, in each bin: :data:`QUEUE`, :data:`BATCH`, :data:`KV`, or :data:`TOKENS` per second."""
        mean: Floats = self.series[index].sums[row, : self.bins] / self.width_s
        return mean

    def _merge(self) -> None:
        self.width_s *= 2
        for series in self.series.values():
            pairs = series.sums.reshape(4, MOST_BINS // 2, 2).sum(axis=2)
            series.sums = np.concatenate([pairs, np.zeros_like(pairs)], axis=1)
