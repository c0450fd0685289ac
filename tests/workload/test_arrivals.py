"""Arrival times: a Poisson process by its statistics, and the rates that make no sense."""

from __future__ import annotations

import numpy as np
import pytest

from simserve.errors import WorkloadError
from simserve.workload import poisson_arrivals


def test_gaps_are_exponential_with_the_mean_of_the_rate() -> None:
    count, rate_per_s = 100_000, 8.0
    gaps_s = np.diff(poisson_arrivals(np.random.default_rng(7), count, rate_per_s), prepend=0.0)

    # The mean of n exponential gaps has a relative standard error of 1/sqrt(n); chance does not reach five of them.
    assert gaps_s.mean() == pytest.approx(1 / rate_per_s, rel=5 / np.sqrt(count))
    assert gaps_s.std() == pytest.approx(1 / rate_per_s, rel=0.02)
    assert np.mean(gaps_s > 1 / rate_per_s) == pytest.approx(np.exp(-1), abs=0.01)
    assert gaps_s.min() >= 0


def test_an_infinite_rate_lets_everyone_arrive_at_once() -> None:
    assert poisson_arrivals(np.random.default_rng(0), 3, float("inf")).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_not_above_zero_is_refused(rate: float) -> None:
    with pytest.raises(WorkloadError, match="give more than 0, or inf"):
        poisson_arrivals(np.random.default_rng(0), 3, rate)
