"""Filling the gaps of a measured table from its neighbours.

A cell is estimated along each axis by a straight line in time between the nearest measured cells on both sides, or,
where there is one on one side only, at that one's efficiency. The estimates are averaged; how well each kind of
estimate (axis, one- or two-sided, how far apart) says again the cells that were measured decides how much it
counts. On a coarse grid, where no axis can be trusted much, the mean efficiency of all cells around joins in and
the average is more even.
"""

from __future__ import annotations

import itertools

import numpy as np

from simserve.calibration.points import Floats, Mask

GAPS = (0.3, 0.7, 1.2, 2.5)
"""Bounds, in doublings of the bound between the neighbours, of the classes of gaps."""
POWER, COARSE_POWER = 4, 6
"""An estimate counts as the usual error of its kind to minus this power."""
TAIL = 0.3
"""Share of the 90th percentile that is added to the median for the usual error."""
FEWEST = 10
"""Estimates of a kind that must have been tried before their error means anything."""
LEAST_ERROR = 0.004


def complete(seconds: Floats, bound_s: Floats, axes: list[Floats], coarse: bool = False) -> Floats:
    """``seconds`` with its NaN cells estimated; ``bound_s`` (launch included) has no gaps; ``axes`` are coordinates.

    Time is taken to be straight over each axis' coordinate: give squares where it grows so. NaN stays where a cell has
    no measured neighbour on any axis.
    """
    measured = ~np.isnan(seconds)
    total, weight = np.zeros(seconds.shape), np.zeros(seconds.shape)
    estimates = [_along(seconds, bound_s, axis, coordinates) for axis, coordinates in enumerate(axes)]
    if coarse:
        estimates.append(_around(seconds, bound_s))
    for estimate, kind in estimates:
        usable = ~np.isnan(estimate)
        error = _usual_errors(estimate, seconds, measured, kind)
        counts = np.where(usable, error ** -(COARSE_POWER if coarse else POWER), 0.0)
        total += np.where(usable, estimate, 0.0) * counts
        weight += counts
    estimated: Floats = total / np.where(weight > 0, weight, np.nan)
    return np.where(measured, seconds, estimated)


def complete_all(seconds: Floats, bound_s: Floats, axes: list[Floats], coarse: bool = False) -> Floats:
    """``complete`` again and again until no cell is empty; what has no neighbour at all gets the median efficiency."""
    while True:
        empty = int(np.isnan(seconds).sum())
        if empty == 0:
            return seconds
        seconds = complete(seconds, bound_s, axes, coarse)
        if int(np.isnan(seconds).sum()) == empty:
            return np.where(np.isnan(seconds), bound_s / np.nanmedian(bound_s / seconds), seconds)


def _usual_errors(estimate: Floats, seconds: Floats, measured: Mask, kind: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(np.log(estimate / seconds))
    known = measured & ~np.isnan(error)
    errors = np.ones(seconds.shape)
    for each in np.unique(kind):
        tried = error[known & (kind == each)]
        if tried.size >= FEWEST:
            usual = float(np.median(tried) + TAIL * np.percentile(tried, 90))
            errors[kind == each] = max(usual, LEAST_ERROR)
    return errors


def _along(seconds: Floats, bound_s: Floats, axis: int, x: Floats) -> tuple[Floats, Floats]:
    """Estimates of all cells from the nearest measured ones on ``axis``, themselves left out, and their kind."""
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


def _around(seconds: Floats, bound_s: Floats) -> tuple[Floats, Floats]:
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


def _nearest(known: Mask) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.intp]], ...]:
    """Indices on the last axis of the nearest known cells below (-1: none) and above (length: none)."""
    length = known.shape[-1]
    index = np.arange(length)
    low = np.maximum.accumulate(np.where(known, index, -1), axis=-1)
    high = np.minimum.accumulate(np.where(known, index, length)[..., ::-1], axis=-1)[..., ::-1]
    below = np.concatenate([np.full((*known.shape[:-1], 1), -1), low[..., :-1]], axis=-1)
    above = np.concatenate([high[..., 1:], np.full((*known.shape[:-1], 1), length)], axis=-1)
    return below, above
