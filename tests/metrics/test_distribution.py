"""Statistics of values that stand for many are those of the many."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simserve.metrics.distribution import distribution

gaps = st.lists(st.tuples(st.floats(1e-6, 1e3), st.integers(1, 50)), min_size=1, max_size=30)
percentiles = st.lists(st.floats(0, 100), max_size=5)


def test_two_short_gaps_and_one_long() -> None:
    gaps_s = distribution(np.array([0.3, 0.1]), [0, 25, 75, 100], np.array([1, 2]))

    assert gaps_s.count == 3
    assert gaps_s.mean == pytest.approx(0.5 / 3)
    assert gaps_s.median == 0.1
    assert gaps_s.at == pytest.approx((0.1, 0.1, 0.2, 0.3))


@given(gaps, percentiles)
@example([(0.02, 1)], [99.0])
@example([(0.02, 3), (0.02, 4)], [0.0, 50.0, 100.0])
def test_the_statistics_are_numpys_of_the_expanded_values(
    pairs: list[tuple[float, int]], percents: list[float]
) -> None:
    values = np.array([value for value, _ in pairs])
    counts = np.array([count for _, count in pairs])
    expanded = np.repeat(values, counts)

    found = distribution(values, percents, counts)

    assert found.count == len(expanded)
    assert found.mean == pytest.approx(np.mean(expanded), rel=1e-12)
    assert found.std == pytest.approx(np.std(expanded), rel=1e-9, abs=1e-12 * values.max())
    assert found.median == pytest.approx(np.median(expanded), rel=1e-12)
    assert found.at == pytest.approx([np.percentile(expanded, percent) for percent in percents], rel=1e-12)


@given(gaps, st.floats(0, 100))
def test_no_percentile_lies_outside_the_values(pairs: list[tuple[float, int]], percent: float) -> None:
    values = np.array([value for value, _ in pairs])
    (found,) = distribution(values, [percent], np.array([count for _, count in pairs])).at
    assert values.min() <= found <= values.max()


def test_a_hundred_billion_gaps_cost_as_much_as_two() -> None:
    found = distribution(np.array([0.01, 0.02]), [50, 99], np.array([9 * 10**10, 10**10]))

    assert found.count == 10**11
    assert found.mean == pytest.approx(0.011)
    assert found.at == pytest.approx((0.01, 0.02))


def test_nothing_has_no_statistics() -> None:
    nothing = distribution(np.array([]), [50, 99])

    assert nothing.count == 0
    assert all(math.isnan(value) for value in (nothing.mean, nothing.std, nothing.median, *nothing.at))
