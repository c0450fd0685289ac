"""The error left on points that no curve was fitted to, by operator and device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simserve.calibration.holdout import holdout_errors, summed_errors
from simserve.calibration.importers.vidur import read_host_steps
from simserve.calibration.shipped import ANOTHER_CHIP, TABLES
from simserve.calibration.transfer import DATA_SHEET, transfers
from simserve.hardware import load_hardware
from simserve.latency import VLLM_V0

OPS = Path(__file__).parents[2].parent / "shared" / "measurements" / "ops"
needs_tables = pytest.mark.skipif(not OPS.is_dir(), reason=f"the published operator tables are not in {OPS}")

TARGETS = {
    ("A100-SXM4-80GB", "gemm", "points"): (0.03, 0.15),
    ("A100-SXM4-80GB", "decode_attention", "points"): (0.03, 0.18),
    ("A100-SXM4-80GB", "prefill_attention", "points"): (0.02, 0.13),
    ("A100-SXM4-80GB", "gemm", "shapes"): (0.05, 0.20),
    ("A100-SXM4-80GB", "decode_attention", "shapes"): (0.06, 0.30),
    ("RTX3090", "gemm", "points"): (0.01, 0.05),
    ("RTX3090", "gemm", "shapes"): (0.06, 0.25),
    ("RTX4090", "gemm", "shapes"): (0.06, 0.25),
    ("NPU-Ascend910B", "gemm", "points"): (0.06, 0.30),
}
"""Median and 95th percentile of the absolute error, at most."""


@needs_tables
@pytest.mark.parametrize("name", sorted({name for name, _, _ in TARGETS}))
def test_held_out_points_are_met(name: str) -> None:
    errors = {(e.hardware, e.operator, e.held_out.of): e.held_out for e in holdout_errors(OPS, name)}

    for key, (median, p95) in TARGETS.items():
        if key[0] == name:
            assert errors[key].median <= median, key
            assert errors[key].p95 <= p95, key


@pytest.mark.parametrize("name", sorted(TABLES))
def test_profiles_say_where_their_curves_come_from_and_how_well_they_hold(name: str) -> None:
    gemm = load_hardware(name).calibration.gemm

    assert gemm.source.startswith("github.com/")
    assert gemm.licence
    assert {held.of for held in gemm.held_out} == {"points", "shapes"}


@needs_tables
def test_the_older_engines_host_costs_are_a_line_through_what_was_measured() -> None:
    requests, seconds = read_host_steps(OPS / "A100-SXM4-80GB" / "a100_cpu_overheads_bf1061.csv")
    slope, start = np.polyfit(requests, seconds, 1)

    assert pytest.approx(start, rel=0.05) == VLLM_V0.step_s
    assert pytest.approx(slope, rel=0.05) == VLLM_V0.request_s


@needs_tables
def test_curves_lent_to_another_chip_are_as_far_off_as_loans_are_said_to_be() -> None:
    """Of one pair and of assumed efficiencies; ``python -m simserve.calibration.transfer`` has all."""
    lent, assumed = transfers(OPS, "RTX3090", ["A100-SXM4-80GB", DATA_SHEET])

    assert (lent.operator, assumed.operator) == ("gemm", "gemm"), "nothing else was measured on the RTX 3090"
    assert lent.p90 == pytest.approx(ANOTHER_CHIP["gemm"], rel=0.5)
    assert assumed.p90 == pytest.approx(load_hardware("CPU").default_efficiency.uncertainty, rel=0.5)


def test_the_sum_of_a_few_errs_less_than_each_of_them() -> None:
    random = np.random.default_rng(1)
    measured = np.ones(400)
    predicted = measured * random.uniform(0.8, 1.2, 400)

    summed = summed_errors(predicted, measured, np.repeat([1.0, 2.0], 200), random)

    assert len(summed) == 100
    assert np.percentile(summed, 90) < 0.7 * np.percentile(np.abs(predicted - 1), 90)
