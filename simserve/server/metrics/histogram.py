"""A Prometheus histogram as plain numbers, which takes many equal values at once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Histogram:
    """Counts values by upper bound; ``bounds`` ascend, and what is above the last counts as infinite.

    ``total`` and ``counts`` are what has been counted before, as :meth:`body` tells it.
    """

    def __init__(self, bounds: Sequence[float], total: float = 0.0, counts: Sequence[int] | None = None) -> None:
        self.sum = total
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1) if counts is None else list(counts)

    def add(self, value: float, count: int = 1) -> None:
        """Note ``value`` ``count`` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self.sum += value * count

    def include(self, other: Histogram) -> None:
        """Add what another one with the same bounds has counted."""
        self.sum += other.sum
        self._counts = [mine + its for mine, its in zip(self._counts, other._counts, strict=True)]

    def body(self) -> tuple[float, list[int]]:
        """The sum and the counts, for one that goes on from there."""
        return self.sum, self._counts

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound as a label, how many values were not larger), as prometheus-client takes them."""
        labels = [*map(label, self._bounds), "+Inf"]
        return [(bound, float(total)) for bound, total in zip(labels, accumulate(self._counts), strict=True)]


def label(bound: float) -> str:
    """A bound as prometheus-client writes it: ``0.05``, ``1.0``."""
    return repr(float(bound))
