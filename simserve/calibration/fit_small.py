"""Measured all-reduces and small operators -> efficiency curves."""

from __future__ import annotations

import numpy as np

from simserve.calibration.limits import Source, three_digits
from simserve.calibration.points import AllReducePoints, ElementwisePoints
from simserve.hardware import Curves, Rates

RATE_COLUMNS = 40


def fit_all_reduce(points: AllReducePoints, link_bytes_per_s: float, source: Source) -> Curves:
    """Rows of devices, columns of message bytes, relative to a ring over the link."""
    sizes = np.unique(points.message_bytes)
    launch_s = float(points.seconds.min())
    rows = {}
    for devices in np.unique(points.devices):
        own = points.where(points.devices == devices)
        order = np.argsort(own.message_bytes)
        seconds = np.maximum.accumulate(np.interp(sizes, own.message_bytes[order], own.seconds[order]))
        bound_s = sizes * (2 * (devices - 1) / devices) / link_bytes_per_s
        rows[f"{devices:.0f}"] = three_digits(np.clip((launch_s + bound_s) / seconds, 1e-4, 1.0))
    return Curves(**source.fields(len(points)), launch_s=round(launch_s, 9), columns=tuple(sizes), rows=rows)


def fit_elementwise(points: ElementwisePoints, bytes_per_s: float, source: Source) -> Rates:
    """Fractions of memory bandwidth by operator, at numbers of bytes spread evenly over their logarithm."""
    low, high = points.moved_bytes.min(), points.moved_bytes.max()
    columns = np.unique(np.geomspace(low, high, RATE_COLUMNS).round())
    rows = {}
    for name in np.unique(points.name):
        own = points.where(points.name == name)
        order = np.argsort(own.moved_bytes, kind="stable")
        moved, seconds = own.moved_bytes[order], np.maximum.accumulate(own.seconds[order])
        inside = np.interp(columns, moved, seconds)
        beyond = np.maximum(columns / moved[-1], 1.0)
        rate = columns / (inside * beyond) / bytes_per_s
        rows[str(name)] = three_digits(rate)
    return Rates(**source.fields(len(points)), columns=tuple(columns), rows=rows)
