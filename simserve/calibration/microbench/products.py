"""Matrix products: the peak, and a model's own shapes with weights that come from memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from simserve.calibration.microbench.bench import Bench, Pace, Progress
from simserve.calibration.microbench.machine import Machine
from simserve.calibration.microbench.operands import Pool, Rotation
from simserve.calibration.points import GemmPoints
from simserve.models import ModelSpec

if TYPE_CHECKING:
    import torch

PEAK_SIZES = {"cpu": (1024, 2048), "gpu": (4096, 8192)}
PEAK_DTYPES = ("float32", "bfloat16", "float16")
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
GPU_ROWS = (*ROWS, 17, 33, 65, 129, 1024, 2048, 4096, 8192)
QUICK_ROWS = (1, 4, 16, 64)
USUAL_SHAPES = ((512, 512), (3072, 768), (2048, 2048), (32000, 1024))
"""(n, k) measured beside the models' own, so that others find near neighbours."""
NOT_ON_CPU = ("float16",)
"""Dtypes in which torch has no fast matrix product there: measuring one would take all the time."""


def measure_peaks(bench: Bench, machine: Machine, pace: Pace, quick: bool) -> dict[str, float]:
    """FLOP/s of large square products by dtype: the best of all repeats."""
    import torch

    sizes = PEAK_SIZES[machine.kind][: 1 if quick else None]
    dtypes = [name for name in PEAK_DTYPES if name == machine.dtype_name or machine.kind == "gpu"]
    if machine.kind == "cpu":
        dtypes = list(dict.fromkeys([machine.dtype_name, *(n for n in PEAK_DTYPES if n not in NOT_ON_CPU)]))
    cases = {}
    for name in dtypes:
        for size in sizes:
            a = torch.randn(size, size, device=machine.device).to(getattr(torch, name))
            cases[name, size] = partial(torch.mm, a, a)
    timings = bench.measure(cases, pace, percentile=0)
    peaks: dict[str, float] = {}
    for (name, size), timing in timings.items():
        peaks[name] = max(peaks.get(name, 0.0), 2 * size**3 / timing.seconds)
    return peaks


def product_shapes(models: Sequence[ModelSpec], quick: bool) -> list[tuple[int, int]]:
    """(n, k) of every matrix product of ``models``, and the usual ones."""
    own = [(gemm.n, gemm.k) for model in models for gemm in model.gemms()]
    return list(dict.fromkeys(own + ([] if quick else list(USUAL_SHAPES))))


def measure_products(
    bench: Bench, machine: Machine, pool: Pool, shapes: Sequence[tuple[int, int]], pace: Pace, quick: bool,
    progress: Progress,
) -> GemmPoints:  # fmt: skip
    """Each of ``shapes`` over numbers of rows. A shape too large for the pool is left out: its neighbours stand in."""
    import torch

    rows = QUICK_ROWS if quick else GPU_ROWS if machine.kind == "gpu" else ROWS
    inputs = {k: torch.randn(max(rows), k, device=machine.device).to(machine.dtype) for _, k in shapes}
    cases: dict[tuple[int, int, int], Callable[[], object]] = {}
    for n, k in shapes:
        if pool.holds(n, k):
            weights = pool.pieces(n, k)
            cases |= {(m, n, k): partial(_product, inputs[k][:m], weights) for m in sorted(rows)}
    timings = bench.measure(cases, pace, progress=progress)
    seconds = np.array([timing.seconds for timing in timings.values()])
    return GemmPoints(seconds, *np.array(list(timings), dtype=float).T)


def _product(rows: torch.Tensor, weights: Rotation) -> torch.Tensor:
    import torch

    return torch.nn.functional.linear(rows, next(weights))
