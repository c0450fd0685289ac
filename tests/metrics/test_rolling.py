"""Live percentiles against the true ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.metrics.rolling import RollingDurations


@dataclass
class Clock:
    now_s: float = 500.0

    def __call__(self) -> float:
        return self.now_s


def test_nothing_has_no_percentile() -> None:
    durations = RollingDurations()
    assert durations.percentile(50) is None
    assert durations.recent_percentile(99) is None
    assert durations.recent_count() == 0


@given(
    st.lists(st.tuples(st.floats(1e-6, 1e4), st.integers(1, 50)), min_size=1, max_size=50), st.sampled_from([1, 50, 99])
)
def test_percentiles_are_right_within_a_bin(values: list[tuple[float, int]], percent: int) -> None:
    durations = RollingDurations(Clock())
    for duration_s, count in values:
        durations.add(duration_s, count)
    spread = np.repeat([value for value, _ in values], [count for _, count in values])
    true_s = float(np.percentile(spread, percent, method="inverted_cdf"))
    found_s = durations.percentile(percent)
    assert found_s is not None
    assert true_s * (1 - 1e-9) <= found_s <= true_s * 1.045
    assert durations.recent_percentile(percent) == found_s
    assert durations.count == durations.recent_count() == len(spread)
    assert durations.sum_s == pytest.approx(spread[spread > 1e-6].sum())


def test_the_recent_past_forgets_and_the_whole_does_not() -> None:
    clock = Clock()
    durations = RollingDurations(clock)
    durations.add(1.0, 10)
    clock.now_s += 30
    durations.add(0.001)
    assert durations.recent_count() == 11
    clock.now_s += 40
    assert durations.recent_count() == 1
    assert durations.recent_percentile(99) == pytest.approx(0.001, rel=0.05)
    clock.now_s += 1000
    assert durations.recent_percentile(99) is None
    assert durations.percentile(50) == pytest.approx(1.0, rel=0.05)
    assert durations.max_s == 1.0


def test_early_is_not_late() -> None:
    durations = RollingDurations()
    durations.add(-0.5)
    assert durations.percentile(99) == 1e-6
    assert durations.sum_s == 0.0


def test_cumulative_counts_end_with_all() -> None:
    durations = RollingDurations()
    durations.add(0.0015, 3)
    durations.add(0.1)
    pairs = list(durations.cumulative())
    assert [count for bound, count in pairs if bound < 0.0015][-1] == 0
    assert next(count for bound, count in pairs if bound >= 0.0015) == 3
    assert pairs[-1][1] == 4
