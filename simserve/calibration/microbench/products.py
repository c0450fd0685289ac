"""Matrix products: the peak, and a model's own shapes with weights that come from memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from simserve.calibration.microbench.bench import Bench, Pace, Progress, Timing
from simserve.calibration.microbench.machine import Machine
from simserve.calibration.microbench.operands import Pool
from simserve.calibration.microbench.stopwatch import Call
from simserve.calibration.points import GemmPoints
from simserve.models import ModelSpec

if TYPE_CHECKING:
    import torch

    from simserve.engines.torch.linear import Linear

PEAK_SIZES = {"cpu": (1024, 2048), "gpu": (4096, 8192)}
PEAK_DTYPES = ("float32", "bfloat16", "float16")
ROWS = (1, 2, 3, 4, 8, 16, 24, 32, 64, 96, 128, 256, 384, 512)
"""Some of them are kept from the fit, see HELD_ROWS."""
GPU_ROWS = (*ROWS, 17, 33, 65, 129, 1024, 2048, 4096, 8192)
QUICK_ROWS = (1, 4, 16, 64)
USUAL_SHAPES = ((512, 512), (3072, 768), (2048, 2048), (32000, 1024))
"""(n, k) measured beside the models' own, so that others find near neighbours."""
MOST_PIECES = 256
NOT_ON_CPU = ("float16",)
"""Dtypes in which torch has no fast matrix product there: measuring one would take all the time."""


def speed_cases(machine: Machine, pool: Pool) -> dict[str, Call]:
    """Two things that tell how fast the machine is just now: a large product, and memory read from end to end."""
    import torch

    a = torch.randn(1024, 1024, device=machine.device).to(machine.dtype)
    return {"product": partial(torch.mm, a, a), "read": pool.read}


def measure_peaks(bench: Bench, machine: Machine, pace: Pace, quick: bool, progress: Progress) -> dict[str, float]:
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
    timings = bench.measure(cases, pace, percentile=0, progress=progress)
    peaks: dict[str, float] = {}
    for (name, size), timing in timings.items():
        peaks[name] = max(peaks.get(name, 0.0), 2 * size**3 / timing.seconds)
    return peaks


def product_shapes(models: Sequence[ModelSpec], quick: bool) -> list[tuple[int, int]]:
    """(n, k) of every matrix product of ``models``, and the usual ones."""
    own = [(gemm.n, gemm.k) for model in models for gemm in model.gemms()]
    return list(dict.fromkeys(own + ([] if quick else list(USUAL_SHAPES))))


def measure_products(
    bench: Bench, machine: Machine, pool: Pool, cold_bytes: int, shapes: Sequence[tuple[int, int]], pace: Pace,
    quick: bool, progress: Progress,
) -> GemmPoints:  # fmt: skip
    """Each of ``shapes`` over numbers of rows. A shape too large for the pool is left out: its neighbours stand in.

    One shape after the other: the engine packs weights in a layout of its own, which takes longer than measuring them
    if there are more than ``cold_bytes`` suffice for.
    """
    import torch

    from simserve.engines.torch.linear import Linear

    rows = sorted(QUICK_ROWS if quick else GPU_ROWS if machine.kind == "gpu" else ROWS)
    timings: dict[tuple[int, int, int], Timing] = {}
    for index, (n, k) in enumerate(shapes):
        if pool.holds(n, k):
            products = cycle([Linear(weight) for weight in pool.pieces(n, k, most_bytes=cold_bytes)[:MOST_PIECES]])
            inputs = torch.randn(rows[-1], k, device=machine.device).to(machine.dtype)
            cases = {(m, n, k): partial(_product, inputs[:m], products) for m in rows}
            timings |= bench.measure(cases, pace)
        progress((index + 1) / len(shapes))
    seconds = np.array([timing.seconds for timing in timings.values()])
    return GemmPoints(seconds, *np.array(list(timings), dtype=float).T)


def _product(rows: torch.Tensor, products: Iterator[Linear]) -> torch.Tensor:
    return next(products)(rows)
