"""Filling the gaps of a measured table from its neighbours.

A cell is estimated in several ways: along each axis, by a straight line in time between the nearest measured cells on
both sides, or, where there is one on one side only, at that one's efficiency; by the mean efficiency of the cells
around it; and, once per axis, by kriging the efficiencies near it with cells far away on that axis counting as near.
How well each way says again the cells that were measured decides how much it counts, and the weighted median of all
estimates is taken: kernels are chosen from a list, so that times jump, and a mean would lie between two kernels.

Kriging is what Krige and Matheron called it: the best linear estimate where the correlation of two cells falls with
their distance, here exponentially.
"""

from __future__ import annotations

import itertools

import numpy as np

from simserve.calibration.points import Floats, Mask

GAPS = (0.3, 0.7, 1.2, 2.5)
"""Bounds, in doublings of the bound between the neighbours, of the classes of gaps."""
POWER = 2
"""An estimate counts as the usual error of its kind to minus this power."""
TAIL = 0.3
"""Share of the 90th percentile that is added to the median for the usual error."""
FEWEST = 10
"""Estimates of a kind that must have been tried before their error means anything."""
LEAST_ERROR = 0.004

NEAR, FAR = 1.5, 20.0
"""Doublings over which efficiencies stay alike: on any axis, and on the one that a kriging estimate follows."""
NEIGHBOURS = 24
NOISE = 1e-3
"""Variance of a measurement, relative to that between cells far apart."""
MOST_TRIED = 1500
"""Measured cells that kriging is tried on."""
CERTAINTIES = (0.25, 0.5, 0.75, 0.9)
"""Quantiles of its own variance that part kriging's estimates into kinds."""
CELLS_AT_ONCE = 512
REACH, FAR_REACH = {1: 8, 2: 4, 3: 2, 4: 1}, 8
"""Cells to either side that kriging looks at: on an axis, by how many there are, and on the one it follows."""

Index = np.ndarray[tuple[int, ...], np.dtype[np.intp]]
Estimate = tuple[Floats, Floats]
"""Seconds, NaN where there is no estimate, and the kind of each: kinds are told apart by their usual errors."""


def complete(seconds: Floats, bound_s: Floats, axes: list[Floats], wanted: Mask | None = None) -> Floats:
    """``seconds`` with its NaN cells estimated; ``bound_s`` (launch included) has no gaps; ``axes`` are coordinates.

    Time is taken to be straight over each axis' coordinate: give squares where it grows so. What has no neighbour at
    all gets the median efficiency. Cells that are not ``wanted`` are estimated too, but without the dearest way.
    """
    measured = ~np.isnan(seconds)
    if measured.all():
        return seconds
    estimates = [_along(seconds, bound_s, axis, coordinates) for axis, coordinates in enumerate(axes)]
    estimates.append(_around(seconds, bound_s))
    asked = ~measured if wanted is None else ~measured & wanted
    estimates += [_kriged(seconds, bound_s, axes, axis, asked) for axis in range(len(axes)) if len(axes[axis]) > 1]
    weights = [_weights(estimate, seconds, measured, kind) for estimate, kind in estimates]
    estimated = _weighted_median(np.array([estimate for estimate, _ in estimates]), np.array(weights))
    usual = bound_s / np.nanmedian(bound_s / seconds)
    return np.where(measured, seconds, np.where(np.isnan(estimated), usual, estimated))


def _weights(estimate: Floats, seconds: Floats, measured: Mask, kind: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(np.log(estimate / seconds))
    known = measured & ~np.isnan(error)
    errors = np.ones(seconds.shape)
    for each in np.unique(kind):
        tried = error[known & (kind == each)]
        if tried.size >= FEWEST:
            usual = float(np.median(tried) + TAIL * np.percentile(tried, 90))
            errors[kind == each] = max(usual, LEAST_ERROR)
    return np.where(np.isnan(estimate), 0.0, errors**-POWER)


def _weighted_median(values: Floats, weights: Floats) -> Floats:
    """Along the first axis; NaN where no weight is."""
    order = np.argsort(np.where(weights > 0, values, np.inf), axis=0)
    summed = np.cumsum(np.take_along_axis(weights, order, 0), axis=0)
    middle = np.argmax(summed >= summed[-1] / 2, axis=0)[None]
    median = np.take_along_axis(np.take_along_axis(values, order, 0), middle, 0)[0]
    return np.where(summed[-1] > 0, median, np.nan)


def _along(seconds: Floats, bound_s: Floats, axis: int, x: Floats) -> Estimate:
    """Estimates of all cells from the nearest measured ones on ``axis``, themselves left out."""
    s: Floats = np.moveaxis(seconds, axis, -1)
    b: Floats = np.moveaxis(bound_s, axis, -1)
    low, high = _nearest(~np.isnan(s))
    has_low, has_high = low >= 0, high < len(x)
    low, high = np.clip(low, 0, None), np.clip(high, None, len(x) - 1)
    s_low, s_high = np.take_along_axis(s, low, -1), np.take_along_axis(s, high, -1)
    b_low, b_high = np.take_along_axis(b, low, -1), np.take_along_axis(b, high, -1)
    width = np.where(x[high] > x[low], x[high] - x[low], 1.0)
    between = s_low + (s_high - s_low) * (x - x[low]) / width
    beside = np.where(has_low, s_low * b / b_low, np.where(has_high, s_high * b / b_high, np.nan))
    both = has_low & has_high
    gap = np.log2(np.where(both, b_high / b_low, np.where(has_low, b / b_low, b_high / b)))
    kind = np.asarray(np.digitize(gap, GAPS) * 2.0 + both, dtype=np.float64)
    estimate: Floats = np.where(both, between, beside)
    return np.moveaxis(estimate, -1, axis), np.moveaxis(kind, -1, axis)


def _around(seconds: Floats, bound_s: Floats) -> Estimate:
    """Estimates from the mean efficiency of the cells one step away on any axes, the straight ones counting more."""
    efficiency: Floats = np.pad(bound_s / seconds, 1, constant_values=np.nan)
    total, weight = np.zeros(seconds.shape), np.zeros(seconds.shape)
    for step in itertools.product((-1, 0, 1), repeat=seconds.ndim):
        axes_moved = sum(map(abs, step))
        if axes_moved:
            moved = efficiency[tuple(slice(1 + s, 1 + s + size) for s, size in zip(step, seconds.shape, strict=True))]
            total += np.nan_to_num(moved) / axes_moved**2
            weight += ~np.isnan(moved) / axes_moved**2
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = bound_s / np.where(weight > 0, total / weight, np.nan)
    return estimate, np.digitize(weight, (1, 2, 4)).astype(np.float64)


def _kriged(seconds: Floats, bound_s: Floats, axes: list[Floats], along: int, asked: Mask) -> Estimate:
    """Estimates of cells ``asked``, and of some measured ones by the others, from efficiencies alike on ``along``."""
    values = np.log(seconds / bound_s)
    known = ~np.isnan(values)
    measured = np.flatnonzero(known)
    tried = measured[:: -(-len(measured) // MOST_TRIED)]
    cells = np.concatenate([np.flatnonzero(asked), tried])
    positions = [_positions(axis) / (FAR if a == along else NEAR) for a, axis in enumerate(axes)]
    estimate, variance = np.full(seconds.size, np.nan), np.full(seconds.size, np.nan)
    for start in range(0, len(cells), CELLS_AT_ONCE):
        some = cells[start : start + CELLS_AT_ONCE]
        at, here = _boxes(some, seconds.shape, along), np.array(np.unravel_index(some, seconds.shape))
        estimate[some], variance[some] = _krige(values, known, positions, here, at)
    kind = np.digitize(variance, np.nanquantile(variance, CERTAINTIES)).astype(np.float64)
    return np.exp(estimate).reshape(seconds.shape) * bound_s, kind.reshape(seconds.shape)


def _positions(axis: Floats) -> Floats:
    """Doublings; what is 0 lies one before the first."""
    above = axis[axis > 0]
    return np.log2(np.maximum(axis, (above[0] if above.size else 2.0) / 2))


def _boxes(cells: Index, shape: tuple[int, ...], along: int) -> Index:
    """Indices (axis, cell, neighbour) of the cells around each cell, a box long on axis ``along``; -1 beyond."""
    reach = [FAR_REACH if axis == along else REACH[len(shape)] for axis in range(len(shape))]
    steps = [np.arange(-r, r + 1) for r in reach]
    box = np.stack(np.meshgrid(*steps, indexing="ij")).reshape(len(shape), 1, -1)
    at = np.array(np.unravel_index(cells, shape))[:, :, None] + box
    inside = ((at >= 0) & (at < np.array(shape)[:, None, None])).all(axis=0)
    return np.where(inside, at, -1)


def _krige(values: Floats, known: Mask, positions: list[Floats], here: Index, at: Index) -> Estimate:
    """Ordinary kriging (the mean is unknown) of the cells ``here`` from the known ones ``at``; and its variance."""
    usable = (at[0] >= 0) & known[tuple(at)] & (at != here[:, :, None]).any(axis=0)
    own = np.array([p[h] for p, h in zip(positions, here, strict=True)])
    theirs = np.array([p[i] for p, i in zip(positions, at, strict=True)])
    apart = np.where(usable, np.abs(theirs - own[:, :, None]).sum(axis=0), np.inf)
    nearest = np.argpartition(apart, min(NEIGHBOURS, apart.shape[1] - 1), axis=1)[:, :NEIGHBOURS]
    usable = np.take_along_axis(usable, nearest, 1)
    like_own = np.exp(-np.take_along_axis(apart, nearest, 1))
    theirs = np.take_along_axis(theirs, nearest[None], 2)
    like_each_other = np.exp(-np.abs(theirs[:, :, :, None] - theirs[:, :, None]).sum(axis=0))
    like_each_other += np.where(usable, NOISE, 1e9)[:, :, None] * np.eye(nearest.shape[1])
    simple, ones = np.moveaxis(
        np.linalg.solve(like_each_other, np.stack([like_own, usable.astype(np.float64)], axis=-1)), -1, 0
    )
    total = np.where(usable.any(axis=1), (ones * usable).sum(axis=1), np.nan)
    weights = simple + ((1 - (simple * usable).sum(axis=1)) / total)[:, None] * ones
    found = np.take_along_axis(np.nan_to_num(values)[tuple(at)], nearest, 1)
    return (weights * np.where(usable, found, 0.0)).sum(axis=1), 1 - (weights * like_own).sum(axis=1)


def _nearest(known: Mask) -> tuple[Index, Index]:
    """Indices on the last axis of the nearest known cells below (-1: none) and above (length: none)."""
    length = known.shape[-1]
    index = np.arange(length)
    low = np.maximum.accumulate(np.where(known, index, -1), axis=-1)
    high = np.minimum.accumulate(np.where(known, index, length)[..., ::-1], axis=-1)[..., ::-1]
    below = np.concatenate([np.full((*known.shape[:-1], 1), -1), low[..., :-1]], axis=-1)
    above = np.concatenate([high[..., 1:], np.full((*known.shape[:-1], 1), length)], axis=-1)
    return below, above
