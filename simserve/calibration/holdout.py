"""How well curves predict what they were not fitted to: ``python -m simserve.calibration.holdout [FOLDER OF TABLES]``.

Half of the points are held out at random, then half of the whole shapes (matrix shapes, head configurations). Curves
are fitted to the rest alone, and asked for the held-out points through the code that times an engine's steps. Points
that a warm last cache made faster than memory allows count as what they are limited to: none on an A100, but 14 % of
the Ascend 910B's matrix products, whose 95th percentile is 39 % when they count as measured.

How neighbours are weighed (:mod:`simserve.calibration.complete`) was chosen by looking at these errors at this SEED.
Other seeds move medians by 0.1-1 and 95th percentiles by 1-3 percentage points, to either side.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from simserve.calibration.fit_attention import fit_decode, fit_prefill, prompt_bound_s
from simserve.calibration.fit_gemm import fit_gemm
from simserve.calibration.limits import Limits, cap_cached
from simserve.calibration.points import AttentionPoints, Floats, GemmPoints, Mask
from simserve.calibration.predict import predict_decodes, predict_gemms, predict_prompts
from simserve.calibration.shipped import TABLES, Tables, decodes_of
from simserve.hardware import HardwareProfile, HeldOut, load_hardware

SEED = 20
ROUNDS = 3
"""Random halvings that are pooled."""
USUAL_FOLDER = Path("../shared/measurements/ops")
AnyPoints = GemmPoints | AttentionPoints
Split = Literal["points", "shapes"]


@dataclass(frozen=True)
class OperatorError:
    """Held-out error of one operator on one device."""

    hardware: str
    operator: str
    held_out: HeldOut


def holdout_errors(root: Path, names: list[str] | None = None) -> list[OperatorError]:
    """Errors of every operator with tables, by profile; raises :class:`HardwareError` for bad tables."""
    found = []
    for name in names or list(TABLES):
        hardware, tables = load_hardware(name), TABLES[name]
        for operator, splits, test in _tests(tables, hardware, root):
            found += [OperatorError(name, operator, test(split)) for split in splits]
    return found


def main() -> None:
    """Print the table of held-out errors."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else USUAL_FOLDER
    print(f"{'hardware':16} {'operator':18} {'held out':8} {'points':>7} {'median':>8} {'p95':>8}")
    for name in TABLES:
        for error in holdout_errors(root, [name]):
            held = error.held_out
            print(
                f"{name:16} {error.operator:18} {held.of:8} {held.points:7} {held.median:8.1%} {held.p95:8.1%}",
                flush=True,
            )


Test = tuple[str, tuple[Split, ...], Callable[[Split], HeldOut]]


def _tests(tables: Tables, hardware: HardwareProfile, root: Path) -> list[Test]:
    both: tuple[Split, ...] = ("points", "shapes")
    tests: list[Test] = [("gemm", both, lambda split: gemm_error(tables, hardware, root, split))]
    if tables.quantized_gemm:
        tests.append(("quantized_gemm", both, lambda split: gemm_error(tables, hardware, root, split, "int8")))
    if tables.decode or tables.mixed:
        splits = both if tables.decode else both[:1]
        tests.append(("decode_attention", splits, lambda split: decode_error(tables, hardware, root, split)))
    if tables.prefill:
        tests.append(("prefill_attention", both[:1], lambda split: prefill_error(tables, hardware, root)))
    return tests


def gemm_error(tables: Tables, hardware: HardwareProfile, root: Path, split: Split, dtype: str = "bfloat16") -> HeldOut:
    """Error of matrix products."""
    table = tables.gemm if dtype == "bfloat16" else tables.quantized_gemm
    assert table is not None
    source, read = table
    limits = Limits.of(hardware, dtype)
    points = read(root)
    bound_s = np.maximum(
        2 * points.m * points.n * points.k / limits.flops_per_s,
        limits.element_bytes * (points.n * points.k + points.m * (points.n + points.k)) / limits.bytes_per_s,
    )
    cached = cap_cached(points.seconds, bound_s, limits.element_bytes * points.n * points.k, limits)
    limited = GemmPoints(cached, points.m, points.n, points.k)

    def predict(train: Mask) -> Floats:
        curves = fit_gemm(points.where(train), limits, source, tables.most_columns, tables.coarse)
        return predict_gemms(curves, points, hardware, dtype)

    return _error(limited.seconds, np.column_stack([points.n, points.k]), split, predict)


def decode_error(tables: Tables, hardware: HardwareProfile, root: Path, split: Split) -> HeldOut:
    """Error of decode attention."""
    limits = Limits.of(hardware)
    if tables.decode:
        source, points = tables.decode[0], tables.decode[1](root)
    else:
        assert tables.mixed is not None
        source, points = tables.mixed[0], decodes_of(tables.mixed[1](root))
    read_bytes = points.kv_heads * points.sequences * points.tokens * 512
    limited = cap_cached(points.seconds, read_bytes / limits.bytes_per_s, read_bytes, limits)

    def predict(train: Mask) -> Floats:
        return predict_decodes(fit_decode(points.where(train), limits, source), points, hardware)

    return _error(limited, np.column_stack([points.heads, points.kv_heads]), split, predict)


def prefill_error(tables: Tables, hardware: HardwareProfile, root: Path) -> HeldOut:
    """Error of prompts' attention."""
    assert tables.prefill is not None
    source, read = tables.prefill
    limits = Limits.of(hardware)
    points = read(root)
    bound_s = prompt_bound_s(limits, points.heads, points.kv_heads, points.sequences, points.tokens)

    def predict(train: Mask) -> Floats:
        curves = fit_prefill(points.where(train), limits, source, one_sequence=False)
        return predict_prompts(curves, points, hardware)

    shapes = np.column_stack([points.heads, points.kv_heads])
    return _error(np.maximum(points.seconds, bound_s), shapes, "points", predict)


def _error(seconds: Floats, shapes: Floats, split: Split, predict: Callable[[Mask], Floats]) -> HeldOut:
    random = np.random.default_rng(SEED)
    errors = []
    for _ in range(ROUNDS):
        test = random.random(len(seconds)) < 0.5 if split == "points" else _half_of_shapes(shapes, random)
        errors.append(np.abs(predict(~test)[test] / seconds[test] - 1))
    pooled = np.concatenate(errors)
    median, p95 = np.percentile(pooled, (50, 95))
    return HeldOut(of=split, points=len(pooled), median=round(float(median), 4), p95=round(float(p95), 4))


def _half_of_shapes(shapes: Floats, random: np.random.Generator) -> Mask:
    distinct, index = np.unique(shapes, axis=0, return_inverse=True)
    chosen = random.permutation(len(distinct)) < len(distinct) // 2
    return np.asarray(chosen[index.reshape(-1)], dtype=np.bool_)


if __name__ == "__main__":
    main()
