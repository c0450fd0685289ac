"""Mean, deviation and percentiles of values that may each stand for many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Distribution:
    """Statistics of ``count`` values in the unit of the values; all NaN where there are none.

    ``std`` is the population's (divided by ``count``), ``at`` holds the values at the percentiles asked for.
    """

    count: int
    mean: float
    std: float
    median: float
    at: tuple[float, ...]


def distribution(
    values: npt.NDArray[np.float64], percentiles: Sequence[float], counts: npt.NDArray[np.int64] | None = None
) -> Distribution:
    """Statistics of ``values``, where ``values[i]`` occurs ``counts[i]`` >= 1 times (once if no counts are given).

    Equal to NumPy's mean, std and linearly interpolated percentile of ``np.repeat(values, counts)``, at the cost of the
    distinct values alone. ``percentiles`` are in percent, 0 to 100.
    """
    if len(values) == 0:
        return Distribution(0, math.nan, math.nan, math.nan, (math.nan,) * len(percentiles))
    order = np.argsort(values, kind="stable")
    values = values[order]
    counts = np.ones(len(values), dtype=np.int64) if counts is None else counts[order]
    ends = np.cumsum(counts)
    count = int(ends[-1])
    mean = float((values * counts).sum() / count)
    std = math.sqrt(float((np.square(values - mean) * counts).sum()) / count)
    median, *at = (_percentile(values, ends, percent) for percent in (50.0, *percentiles))
    return Distribution(count, mean, std, median, tuple(at))


def _percentile(values: npt.NDArray[np.float64], ends: npt.NDArray[np.int64], percent: float) -> float:
    """Value at ``percent``; the i-th of the sorted ``values`` fills ranks ``ends[i - 1]`` to ``ends[i] - 1``."""
    last_rank = int(ends[-1]) - 1
    rank = last_rank * (percent / 100.0)
    lower_rank = min(math.floor(rank), last_rank)
    ranks = (lower_rank, min(lower_rank + 1, last_rank))
    lower, upper = values[np.searchsorted(ends, ranks, side="right")].tolist()
    share = rank - lower_rank
    # From the nearer end, as NumPy does: the result then never leaves [lower, upper].
    return float(lower + (upper - lower) * share if share < 0.5 else upper - (upper - lower) * (1.0 - share))
