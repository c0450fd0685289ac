"""How far off efficiencies are that were measured in another number format: the evidence for the stated uncertainty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simserve.calibration.shipped import TABLES
from simserve.hardware import Curves, load_hardware
from simserve.latency.gemm import GemmRoofline, MeasuredGemms
from simserve.latency.number_formats import CARRIED_OVER

TABLES_FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "measurements" / "ops"
LARGE = 4096 * 4096


@pytest.mark.skipif(not TABLES_FOLDER.exists(), reason=f"there are no operator tables at {TABLES_FOLDER}")
def test_efficiencies_in_bfloat16_predict_int8_products_as_well_as_stated() -> None:
    """On the one device whose products were measured in both; of the size that layers of a language model have."""
    ascend = load_hardware("NPU-Ascend910B")
    reader = TABLES["NPU-Ascend910B"].quantized_gemm
    assert reader is not None
    assert ascend.calibration is not None
    assert isinstance(ascend.calibration.gemm, Curves)
    points = reader[1](TABLES_FOLDER)
    wide = GemmRoofline(ascend.peak_flops_for("bfloat16"), ascend.bandwidth_bytes_per_s, 2, 2)
    narrow = GemmRoofline(ascend.peak_flops_for("int8"), ascend.bandwidth_bytes_per_s, 1, 1)
    gemms = MeasuredGemms(ascend.calibration.gemm, narrow, wide)
    large = np.flatnonzero(points.n * points.k >= LARGE)
    errors = np.array(
        [gemms.seconds(points.m[[i]], int(points.n[i]), int(points.k[i]))[0] / points.seconds[i] - 1 for i in large]
    )

    assert np.median(np.abs(errors)) < CARRIED_OVER
    assert -0.15 < np.median(errors) < 0
