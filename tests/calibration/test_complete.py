"""Gaps in a measured table are filled from neighbours: exactly, where time is straight."""

from __future__ import annotations

import numpy as np
import pytest

from simserve.calibration.complete import complete
from simserve.calibration.fit_attention import growing

M, N = np.array([1.0, 2.0, 4.0, 8.0, 16.0]), np.array([100.0, 200.0, 400.0, 800.0])
BOUND = 1e-6 + M[:, None] * N * 1e-9
TRUE = 2 * BOUND


def test_a_gap_in_a_table_of_constant_efficiency_is_filled_exactly() -> None:
    gappy = TRUE.copy()
    gappy[2, 1] = gappy[0, 0] = gappy[4, 3] = np.nan

    assert complete(gappy, BOUND, [M, N]) == pytest.approx(TRUE)


def test_what_was_measured_stays() -> None:
    noisy = TRUE * np.random.default_rng(1).uniform(0.9, 1.1, TRUE.shape)
    gappy = noisy.copy()
    gappy[1, 1] = np.nan

    filled = complete(gappy, BOUND, [M, N])

    assert np.array_equal(filled[~np.isnan(gappy)], noisy[~np.isnan(gappy)])


def test_even_a_corner_without_neighbours_gets_the_usual_efficiency() -> None:
    gappy = np.full(TRUE.shape, np.nan)
    gappy[0, 0] = TRUE[0, 0]

    assert complete(gappy, BOUND, [M, N]) == pytest.approx(TRUE)


def test_between_two_kernels_one_is_taken_not_their_mean() -> None:
    """Efficiency is 0.9 for small n and 0.3 for large: no estimate lies in between."""
    efficiency = np.where(N >= 400, 0.3, 0.9) * np.ones((len(M), 1))
    gappy = BOUND / efficiency
    gappy[2, 1] = gappy[3, 2] = np.nan

    found = BOUND / complete(gappy, BOUND, [M, N])

    for cell in ((2, 1), (3, 2)):
        assert min(abs(found[cell] / 0.3 - 1), abs(found[cell] / 0.9 - 1)) < 0.15


def test_a_spike_does_not_slow_down_everything_after_it() -> None:
    smooth = growing(np.array([[10.0, 45.0, 10.0, 12.0]]), np.full((1, 4), True))[0]

    assert np.all(np.diff(smooth) >= 0)
    assert smooth[2] <= 10.5
    assert smooth[3] == 12.0


def test_a_guess_beyond_what_was_measured_cuts_nothing() -> None:
    smooth = growing(np.array([[10.0, 20.0, 5.0]]), np.array([[True, True, False]]))[0]

    assert smooth.tolist() == [10.0, 20.0, 20.0]
