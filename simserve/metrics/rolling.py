"""Percentiles of a live stream of durations: of all so far, and of about the last minute, at a fixed small cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

LEAST_S = 1e-6
BINS_PER_DOUBLING = 16
BINS = 40 * BINS_PER_DOUBLING
"""From a microsecond to twelve days; what is outside counts in the outermost bin."""

WINDOW_S = 10.0
WINDOWS = 6


class RollingDurations:
    """Counts durations in bins that are 4.4 % apart, which is how exact the percentiles are.

    ``clock`` decides what is recent: the windows begin anew every ten seconds, and the last six are kept.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self.sum_s = 0.0
        self.max_s = 0.0
        self._clock = clock
        self._bins = [0] * BINS
        self._windows = [[0] * BINS for _ in range(WINDOWS)]
        self._window_of = [-1] * WINDOWS

    def add(self, duration_s: float, count: int = 1) -> None:
        """Note ``count`` equal durations; negative ones count as 0."""
        place = 0
        if duration_s > LEAST_S:
            place = min(BINS - 1, math.ceil(math.log2(duration_s / LEAST_S) * BINS_PER_DOUBLING))
            self.sum_s += duration_s * count
            if duration_s > self.max_s:
                self.max_s = duration_s
        self.count += count
        self._bins[place] += count
        self._window()[place] += count

    def percentile(self, percent: float) -> float | None:
        """Of all so far, in seconds, at most 4.4 % too high; None if there were none."""
        return _percentile(self._bins, percent)

    def recent_percentile(self, percent: float) -> float | None:
        """Of the last minute, or what there is of it."""
        return _percentile(self._recent_bins(), percent)

    def recent_count(self) -> int:
        """How many in the last minute."""
        return sum(self._recent_bins())

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """(upper bound in seconds, how many were not longer) at every doubling, for a Prometheus histogram."""
        total = 0
        for place, count in enumerate(self._bins):
            total += count
            if place % BINS_PER_DOUBLING == 0:
                yield _upper_s(place), total

    def _window(self) -> list[int]:
        number = int(self._clock() // WINDOW_S)
        slot = number % WINDOWS
        if self._window_of[slot] != number:
            self._window_of[slot] = number
            self._windows[slot] = [0] * BINS
        return self._windows[slot]

    def _recent_bins(self) -> list[int]:
        oldest = int(self._clock() // WINDOW_S) - WINDOWS + 1
        recent = [bins for bins, number in zip(self._windows, self._window_of, strict=True) if number >= oldest]
        return [sum(counts) for counts in zip(*recent, strict=True)]


class Punctuality:
    """How late tokens were, and how early."""

    def __init__(self) -> None:
        self.late = RollingDurations()
        """Of all; one that is early counts as 0."""
        self.early = RollingDurations()
        """Of those that are early."""

    def add(self, late_s: float, count: int) -> None:
        """Note ``count`` tokens that were ``late_s`` late, or early if that is negative."""
        self.late.add(late_s, count)
        if late_s < 0.0:
            self.early.add(-late_s, count)


def _percentile(bins: list[int], percent: float) -> float | None:
    total = sum(bins)
    if not total:
        return None
    wanted = max(1, math.ceil(total * percent / 100))
    seen = 0
    for place, count in enumerate(bins):
        seen += count
        if seen >= wanted:
            return _upper_s(place)
    raise AssertionError("the bins add up to the total")


def _upper_s(place: int) -> float:
    return float(LEAST_S * 2 ** (place / BINS_PER_DOUBLING))
