"""Straight lines between points, one at a time and many at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simserve.latency.lines import Lines

LINES = Lines(np.array([10.0, 20.0, 40.0]), np.array([1.0, 3.0, 4.0]), last_slope=0.5)


def test_values_between_before_and_beyond_the_points() -> None:
    assert [LINES.at(x) for x in (0, 10, 15, 20, 30, 40, 50)] == [1.0, 1.0, 2.0, 3.0, 3.5, 4.0, 9.0]


def test_points_that_fall_are_lifted() -> None:
    assert Lines(np.array([1.0, 2.0]), np.array([5.0, 4.0]), 0.0).at(2) == 5.0


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_many_at_once_are_the_same_to_the_bit(xs: list[int]) -> None:
    assert LINES.at_all(np.array(xs, dtype=np.float64)).tolist() == [LINES.at(x) for x in xs]
