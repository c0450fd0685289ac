"""The error left on points that no curve was fitted to, by operator and device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simserve.calibration.holdout import holdout_errors
from simserve.calibration.importers.vidur import read_host_steps
from simserve.calibration.shipped import TABLES
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
