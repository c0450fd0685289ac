"""Straight lines between measured points: the one way in which times between them are found."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Lines:
    """Seconds over one variable: a point's value, then its slope up to the next; the last slope goes on for ever.

    Before the first point the first value holds. ``at`` and ``at_all`` give the same floats for the same inputs.
    """

    __slots__ = ("_arrays", "_slopes", "_starts", "_values")

    def __init__(self, points: Floats, values: Floats, last_slope: float) -> None:
        values = np.maximum.accumulate(values)
        slopes = np.append(np.diff(values) / np.diff(points), max(last_slope, 0.0))
        self._starts: list[float] = points.tolist()
        self._values: list[float] = [float(values[0]), *values.tolist()]
        self._slopes: list[float] = [0.0, *slopes.tolist()]
        self._arrays: tuple[Floats, Floats, Floats, Floats] | None = None

    def at(self, x: float) -> float:
        segment = bisect_right(self._starts, x)
        start = self._starts[segment - 1] if segment else 0.0
        return self._values[segment] + self._slopes[segment] * (x - start)

    def at_steps(self, first: int, stride: int, count: int) -> list[float]:
        """``at`` for ``count`` values from ``first`` on, ``stride`` apart; few of them, so that a list is faster."""
        values = range(first, first + count * stride, stride)
        segment = bisect_right(self._starts, first)
        if segment < len(self._starts) and values[-1] >= self._starts[segment]:
            return [self.at(x) for x in values]
        start = self._starts[segment - 1] if segment else 0.0
        value, slope = self._values[segment], self._slopes[segment]
        return [value + slope * (x - start) for x in values]

    def at_all(self, x: Floats) -> Floats:
        """``at`` for each of ``x``."""
        if self._arrays is None:
            starts = np.array(self._starts)
            self._arrays = starts, np.append(0.0, starts), np.array(self._values), np.array(self._slopes)
        starts, origins, values, slopes = self._arrays
        segment = np.searchsorted(starts, x, side="right")
        result: Floats = values[segment] + slopes[segment] * (x - origins[segment])
        return result


class LinesByCount:
    """Lines for each number of something, compiled by ``compile`` when they are first asked for.

    Where it is asked at every step, ``known.get(count) or of(count)`` spares the call.
    """

    def __init__(self, compile: Callable[[int], Lines]) -> None:
        self.known: dict[int, Lines] = {}
        self._compile = compile

    def of(self, count: int) -> Lines:
        lines = self.known.get(count)
        if lines is None:
            lines = self.known[count] = self._compile(count)
        return lines


def weights_between(nodes: Floats, x: float) -> tuple[int, int, float]:
    """Indices of the nodes around ``x`` and the share of the upper one; the outermost node where x is outside."""
    upper = int(np.searchsorted(nodes, x, side="left"))
    if upper == 0 or len(nodes) == 1:
        return 0, 0, 0.0
    if upper == len(nodes):
        return upper - 1, upper - 1, 0.0
    lower = upper - 1
    return lower, upper, float((x - nodes[lower]) / (nodes[upper] - nodes[lower]))
