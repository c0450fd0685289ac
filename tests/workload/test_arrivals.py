"""Arrival times: each process by its statistics at a fixed seed, and the rates that make no sense.

The mean of n gaps has a relative standard error of CV / sqrt(n); the bounds leave several of them.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import WorkloadError
from simserve.workload import ArrivalProcess, BurstArrivals, RampArrivals, SteadyArrivals

COUNT = 100_000


def arrivals(process: ArrivalProcess, count: int = COUNT, seed: int = 7) -> np.ndarray:
    return process.draw(np.random.default_rng(seed), count)


def gaps(process: ArrivalProcess, count: int = COUNT) -> np.ndarray:
    """All gaps, the one before the first arrival included."""
    return np.diff(arrivals(process, count), prepend=0.0)


class TestSteady:
    def test_gaps_of_a_poisson_process_are_exponential(self) -> None:
        gaps_s = gaps(SteadyArrivals(8.0))
        assert gaps_s.mean() == pytest.approx(1 / 8, rel=0.015)
        # Kolmogorov and Smirnov: no two distribution functions are this close by chance unless they are the same.
        expected = 1 - np.exp(-8 * np.sort(gaps_s))
        assert np.abs(expected - np.arange(COUNT) / COUNT).max() < 1.63 / math.sqrt(COUNT)

    @pytest.mark.parametrize("burstiness", [0.25, 0.5, 4.0])
    def test_burstiness_sets_the_variation_and_leaves_the_mean(self, burstiness: float) -> None:
        gaps_s = gaps(SteadyArrivals(8.0, burstiness))
        assert gaps_s.mean() == pytest.approx(1 / 8, rel=0.03)
        assert gaps_s.std() / gaps_s.mean() == pytest.approx(1 / math.sqrt(burstiness), rel=0.03)

    def test_infinite_burstiness_is_one_request_every_so_often(self) -> None:
        assert arrivals(SteadyArrivals(4.0, math.inf), 3).tolist() == [0.25, 0.5, 0.75]

    def test_an_infinite_rate_lets_everyone_arrive_at_once(self) -> None:
        assert arrivals(SteadyArrivals(math.inf), 3).tolist() == [0.0, 0.0, 0.0]


class TestRamp:
    def test_a_linear_ramp_goes_through_the_rates_by_index(self) -> None:
        times = arrivals(RampArrivals(1, 4, burstiness=math.inf), 4)
        assert np.diff(times, prepend=0.0) == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])

    def test_an_exponential_ramp_multiplies_the_rate(self) -> None:
        process = RampArrivals(1, 8, "exponential", burstiness=math.inf)
        assert np.diff(arrivals(process, 4), prepend=0.0) == pytest.approx([1, 1 / 2, 1 / 4, 1 / 8])

    def test_gaps_are_random_around_the_ramp(self) -> None:
        gaps_s = gaps(RampArrivals(10, 30))
        assert gaps_s[:5000].mean() == pytest.approx(1 / 10.5, rel=0.06)
        assert gaps_s[-5000:].mean() == pytest.approx(1 / 29.5, rel=0.06)


class TestBursts:
    def test_each_phase_has_its_rate(self) -> None:
        times = arrivals(BurstArrivals(burst_per_s=50, on_s=2, off_s=8, base_per_s=5))
        in_burst = times % 10 < 2
        cycles = times[-1] / 10
        assert in_burst.sum() / (2 * cycles) == pytest.approx(50, rel=0.03)
        assert (~in_burst).sum() / (8 * cycles) == pytest.approx(5, rel=0.03)

    def test_between_bursts_there_may_be_silence(self) -> None:
        times = arrivals(BurstArrivals(burst_per_s=50, on_s=2, off_s=8))
        assert np.all(times % 10 < 2 + 1e-6)
        assert len(np.unique(times // 10)) > 900

    def test_even_gaps_fill_a_burst_evenly(self) -> None:
        times = arrivals(BurstArrivals(burst_per_s=2, on_s=1, off_s=9, burstiness=math.inf), 5)
        assert times.tolist() == [0.5, 10.0, 10.5, 20.0, 20.5]


processes = st.one_of(
    st.builds(SteadyArrivals, st.floats(0.01, 1e4), st.floats(0.1, 10)),
    st.builds(RampArrivals, st.floats(0.1, 100), st.floats(0.1, 100), st.sampled_from(["linear", "exponential"])),
    st.builds(
        BurstArrivals,
        st.floats(0.1, 100),
        st.floats(0.1, 100),
        st.floats(0.1, 100),
        st.floats(0, 10),
        st.floats(0.1, 9),
    ),
)


@given(processes, st.integers(1, 200), st.integers(0, 2**32))
def test_times_ascend_from_0_and_the_seed_alone_decides_them(process: ArrivalProcess, count: int, seed: int) -> None:
    times = arrivals(process, count, seed)
    assert len(times) == count
    assert times[0] >= 0
    assert np.all(np.isfinite(times))
    assert np.all(np.diff(times) >= 0)
    assert np.array_equal(times, arrivals(process, count, seed))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SteadyArrivals(0.0), "give more than 0, or inf"),
        (lambda: SteadyArrivals(-1.0), "give more than 0, or inf"),
        (lambda: SteadyArrivals(math.nan), "give more than 0, or inf"),
        (lambda: SteadyArrivals(1.0, 0.0), "the burstiness is 0; give more than 0"),
        (lambda: SteadyArrivals(1.0, math.nan), "the burstiness is nan"),
        (lambda: RampArrivals(0, 5), "a ramp cannot pass through 0 requests per second"),
        (lambda: RampArrivals(1, math.inf), "a ramp cannot pass through inf"),
        (lambda: BurstArrivals(0, 1, 1), "bursts of 0 requests per second"),
        (lambda: BurstArrivals(1, 1, 1, -1), "bursts of 1 requests per second with -1 between them"),
        (lambda: BurstArrivals(1, 0, 1), "bursts of 0 s with pauses of 1 s"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(make, sentence: str) -> None:
    with pytest.raises(WorkloadError, match=sentence):
        make()
