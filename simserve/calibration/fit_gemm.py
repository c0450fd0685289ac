"""Measured matrix products -> efficiency curves."""

from __future__ import annotations

import numpy as np

from simserve.calibration.complete import complete
from simserve.calibration.limits import Limits, Source, cap_cached, three_digits
from simserve.calibration.points import Floats, GemmPoints
from simserve.hardware import Curves

MOST_LAUNCH_S = 6e-6
GRID_SHAPES = 64
"""From so many shapes on they are taken as a grid of n and k."""
TILE_ROWS = 8
"""Rows that a matrix unit computes at once at least: time jumps between such blocks and not within."""


def fit_gemm(points: GemmPoints, limits: Limits, source: Source, most_columns: int = 36) -> Curves:
    """Curves of ``points`` with at most ``most_columns`` numbers of tokens, those that the time bends most at."""
    launch_s = min(float(points.seconds.min()), MOST_LAUNCH_S)
    m = np.unique(points.m)
    shapes = np.unique(np.column_stack([points.n, points.k]), axis=0)
    gridded = len(shapes) >= GRID_SHAPES
    if gridded:
        n_axis, k_axis = np.unique(shapes[:, 0]), np.unique(shapes[:, 1])
        shapes = np.array([(n, k) for n in n_axis for k in k_axis])
    bound_s = np.array([limits.gemm_s(m, n, k) for n, k in shapes])
    seconds = np.full(bound_s.shape, np.nan)
    index = {(n, k): row for row, (n, k) in enumerate(shapes.tolist())}
    rows = [index[shape] for shape in zip(points.n.tolist(), points.k.tolist(), strict=True)]
    seconds[rows, np.searchsorted(m, points.m)] = points.seconds
    weights = limits.element_bytes * shapes[:, 0] * shapes[:, 1]
    seconds = cap_cached(seconds, bound_s, weights[:, None] + 0 * m, limits)
    if gridded:
        cube = (len(n_axis), len(k_axis), len(m))
        full = complete(seconds.reshape(cube), launch_s + bound_s.reshape(cube), [n_axis, k_axis, m])
        seconds = full.reshape(bound_s.shape)
    else:
        seconds = np.array(
            [_along_tokens(row, launch_s + bound, m) for row, bound in zip(seconds, bound_s, strict=True)]
        )
    columns = _bends(seconds, m, most_columns)
    efficiency = np.clip((launch_s + bound_s) / seconds, 1e-4, 1.0)[:, columns]
    names = [f"{n:.0f}x{k:.0f}" for n, k in shapes]
    return Curves(
        **source.fields(len(points)),
        launch_s=round(launch_s, 9),
        columns=tuple(m[columns]),
        rows={name: three_digits(row) for name, row in zip(names, efficiency, strict=True)},
    )


def _along_tokens(seconds: Floats, bound_s: Floats, m: Floats) -> Floats:
    """Fill one shape's gaps: at a neighbour's time within its block of rows, straight between neighbours elsewhere."""
    known = np.flatnonzero(~np.isnan(seconds))
    if len(known) == len(m):
        return seconds
    filled = np.interp(m, m[known], seconds[known])
    above = np.clip(np.searchsorted(known, np.arange(len(m))), 0, len(known) - 1)
    low, high = known[np.clip(above - 1, 0, None)], known[above]
    block = np.ceil(m / TILE_ROWS)
    with_low, with_high = block[low] == block, block[high] == block
    filled = np.where(with_low & ~with_high, seconds[low], np.where(with_high & ~with_low, seconds[high], filled))
    last = known[-1]
    filled = np.where(m > m[last], seconds[last] * bound_s / bound_s[last], filled)
    return np.where(np.isnan(seconds), filled, seconds)


def _bends(seconds: Floats, m: Floats, most: int) -> list[int]:
    """Indices of the columns to keep: one by one, that at which straight lines between those kept err most."""
    if len(m) <= most:
        return list(range(len(m)))
    kept = [0, len(m) - 1]
    while len(kept) < most:
        kept.sort()
        lines = np.array([np.interp(m, m[kept], row[kept]) for row in seconds])
        error = np.sqrt(np.mean((lines / seconds - 1) ** 2, axis=0))
        kept.append(int(np.argmax(error)))
    return sorted(set(kept))
