"""Filling the gaps of a measured table from its neighbours.

A cell is estimated along each axis by a straight line in time between the nearest measured cells on both sides, or, where
there is one on one side only, at that one's efficiency. The estimates are averaged; how well each kind of estimate
(axis, one- or two-sided, how far apart) says again the cells that were measured decides how much it counts.
"""

from __future__ import annotations

import numpy as np

from simserve.calibration.points import Floats, Mask

GAPS = (0.3, 0.7, 1.2, 2.5)
"""Bounds, in doublings of the bound between the neighbours, of the classes of gaps."""
POWER = 3
"""An estimate counts as its median error to minus this power."""
FEWEST = 10
"""Estimates of a kind that must have been tried before their error means anything."""
LEAST_ERROR = 0.004


def complete(seconds: Floats, bound_s: Floats, axes: list[Floats]) -> Floats:
    """``seconds`` with its NaN cells estimated; ``bound_s`` (launch included) has no gaps; ``axes`` are coordinates.

    Time is taken to be straight over each axis' coordinate: give squares where it grows so. NaN stays where a cell has
    no measured neighbour on any axis.
    """
    measured = ~np.isnan(seconds)
    total, weight = np.zeros(seconds.shape), np.zeros(seconds.shape)
    for axis, coordinates in enumerate(axes):
        estimate, kind = _along(seconds, bound_s, axis, coordinates)
        usable = ~np.isnan(estimate)
        counts = np.where(usable, _trust(estimate, seconds, measured, kind), 0.0)
        total += np.where(usable, estimate, 0.0) * counts
        weight += counts
    with np.errstate(invalid="ignore"):
        return np.where(measured, seconds, total / np.where(weight > 0, weight, np.nan))


def complete_all(seconds: Floats, bound_s: Floats, axes: list[Floats]) -> Floats:
    """``complete`` again and again until no cell is empty; what has no neighbour at all gets the median efficiency."""
    while True:
        empty = int(np.isnan(seconds).sum())
        if empty == 0:
            return seconds
        seconds = complete(seconds, bound_s, axes)
        if int(np.isnan(seconds).sum()) == empty:
            return np.where(np.isnan(seconds), bound_s / np.nanmedian(bound_s / seconds), seconds)


def _trust(estimate: Floats, seconds: Floats, measured: Mask, kind: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(np.log(estimate / seconds))
    known = measured & ~np.isnan(error)
    trust = np.ones(seconds.shape)
    for each in np.unique(kind):
        tried = error[known & (kind == each)]
        if tried.size >= FEWEST:
            trust[kind == each] = max(float(np.median(tried)), LEAST_ERROR) ** -POWER
    return trust


def _along(seconds: Floats, bound_s: Floats, axis: int, x: Floats) -> tuple[Floats, Floats]:
    """Estimates of all cells from the nearest measured ones on ``axis``, themselves left out, and their kind."""
    s, b = np.moveaxis(seconds, axis, -1), np.moveaxis(bound_s, axis, -1)
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
    kind = np.digitize(gap, GAPS) * 2.0 + both
    return np.moveaxis(np.where(both, between, beside), -1, axis), np.moveaxis(kind, -1, axis)


def _nearest(known: Mask) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.intp]], ...]:
    """Indices on the last axis of the nearest known cells below (-1: none) and above (length: none)."""
    length = known.shape[-1]
    index = np.arange(length)
    low = np.maximum.accumulate(np.where(known, index, -1), axis=-1)
    high = np.minimum.accumulate(np.where(known, index, length)[..., ::-1], axis=-1)[..., ::-1]
    below = np.concatenate([np.full((*known.shape[:-1], 1), -1), low[..., :-1]], axis=-1)
    above = np.concatenate([high[..., 1:], np.full((*known.shape[:-1], 1), length)], axis=-1)
    return below, above
