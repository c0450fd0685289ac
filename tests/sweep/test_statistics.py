"""Means over seeds, and runs that none beats."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.sweep.pareto import pareto_front
from simserve.sweep.statistics import mean_and_half_width, student_t

points = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30)


def test_the_interval_of_a_textbook_sample() -> None:
    mean, half_width = mean_and_half_width([10.0, 12.0, 14.0])
    assert mean == 12.0
    assert half_width == pytest.approx(4.303 * 2 / math.sqrt(3))
    assert math.isnan(mean_and_half_width([1.0])[1])


def test_t_falls_towards_the_normal_distribution() -> None:
    values = [student_t(degrees) for degrees in (*range(1, 200), 2000)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 1.960


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = [
        abs(mean) <= half_width for mean, half_width in (mean_and_half_width(rng.normal(0, 1, 5)) for _ in range(4000))
    ]
    assert 0.935 < np.mean(hits) < 0.965


@given(points)
def test_nothing_beats_the_front_and_it_beats_all_else(given: list[tuple[int, int]]) -> None:
    front = [given[place] for place in pareto_front([(float(x), float(y)) for x, y in given])]
    for x, y in given:
        beaten = any(a <= x and b <= y and (a, b) != (x, y) for a, b in given)
        assert beaten or (x, y) in front
    for x, y in front:
        assert not any(a <= x and b <= y and (a, b) != (x, y) for a, b in given)
