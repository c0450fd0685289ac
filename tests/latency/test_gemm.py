"""Matrix products: exact where measured, straight in between, and of the nearest shapes where nothing is close."""

from __future__ import annotations

import numpy as np
import pytest

from simserve.hardware import Curves
from simserve.latency.gemm import GemmRoofline, MeasuredGemms

ROOFLINE = GemmRoofline(100e12, 1e12, 2, 2)
NOTE = {"source": "a test", "licence": "none", "measured_with": "nothing", "points": 1}


def curves(rows: dict[str, str], columns: str = "1 64 65 1024", launch_s: float = 2e-6) -> Curves:
    return Curves.model_validate({**NOTE, "launch_s": launch_s, "columns": columns, "rows": rows})


def test_a_measured_point_comes_out_as_measured() -> None:
    gemms = MeasuredGemms(curves({"4096x4096": ".8 .7 .4 .9"}), ROOFLINE, ROOFLINE)

    seconds = gemms.seconds(np.array([0.0, 64.0, 65.0]), 4096, 4096)

    assert seconds[0] == 0
    assert seconds[1] == pytest.approx((2e-6 + ROOFLINE.bound_s(64, 4096, 4096)) / 0.7)
    assert seconds[2] == pytest.approx((2e-6 + ROOFLINE.bound_s(65, 4096, 4096)) / 0.4)


def test_time_is_blended_linearly_between_numbers_of_tokens_and_efficiency_held_beyond() -> None:
    gemms = MeasuredGemms(curves({"4096x4096": ".8 .7 .4 .9"}), ROOFLINE, ROOFLINE)
    at = gemms.seconds(np.array([65.0, 544.5, 1024.0, 2048.0]), 4096, 4096)

    assert at[1] == pytest.approx((at[0] + at[2]) / 2)
    assert at[3] == pytest.approx((2e-6 + ROOFLINE.bound_s(2048, 4096, 4096)) / 0.9)


def test_time_is_blended_linearly_between_shapes_of_a_grid() -> None:
    grid = {"1024x1024": ".5", "1024x2048": ".6", "2048x1024": ".7", "2048x2048": ".8"}
    gemms = MeasuredGemms(curves(grid, columns="16"), ROOFLINE, ROOFLINE)
    corners = [gemms.seconds(np.array([16.0]), n, k)[0] for n in (1024, 2048) for k in (1024, 2048)]

    assert gemms.seconds(np.array([16.0]), 1536, 1536)[0] == pytest.approx(np.mean(corners))


def test_the_nearest_of_a_few_shapes_counts_most() -> None:
    gemms = MeasuredGemms(curves({"4096x4096": ".5 .5 .5 .5", "128256x4096": ".9 .9 .9 .9"}), ROOFLINE, ROOFLINE)

    assert 0.5 < gemms.efficiency(6144, 4096)[0] < 0.6
    assert 0.8 < gemms.efficiency(100000, 4096)[0] < 0.9
