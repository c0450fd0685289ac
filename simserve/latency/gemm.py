"""How long matrix products take: a roofline, divided by the efficiency measured near the asked shape.

Times are blended linearly: over the measured numbers of tokens, and over n and k where whole grids of shapes were
measured. Where only a few shapes were, their efficiencies are averaged, the nearest counting most. Blending in log
space would over-predict by 6-14 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.hardware import Curves
from simserve.latency.lines import Floats, weights_between

K_NEARNESS = 0.3
"""How much a factor of two in k separates two shapes, where one in n counts 1: time is nearly proportional to k."""
NEARNESS_OFFSET, NEARNESS_POWER = 0.5, 3


@dataclass(frozen=True)
class GemmRoofline:
    """Peak and bandwidth of a device, and bytes of one element of weights and of activations."""

    flops_per_s: float
    bytes_per_s: float
    weight_bytes: float
    activation_bytes: float

    def bound_s(self, m: npt.ArrayLike, n: float | Floats, k: float | Floats) -> Floats:
        """Seconds that C[m, n] = A[m, k] B[k, n] takes at least."""
        rows = np.asarray(m, dtype=np.float64)
        moved = n * k * self.weight_bytes + rows * ((n + k) * self.activation_bytes)
        bound: Floats = np.maximum(2 * rows * (n * k) / self.flops_per_s, moved / self.bytes_per_s)
        return bound


class MeasuredGemms:
    """Seconds of one matrix product, by efficiency curves of a device."""

    def __init__(self, curves: Curves, roofline: GemmRoofline, measured_roofline: GemmRoofline) -> None:
        self._roofline = roofline
        self._measured = measured_roofline
        self._launch_s = curves.launch_s
        self._tokens = np.array(curves.columns)
        self._shapes = np.array(curves.row_numbers(), dtype=np.float64)
        self._rows = np.array(list(curves.rows.values()))
        self._n, self._k = np.unique(self._shapes[:, 0]), np.unique(self._shapes[:, 1])
        self._grid = self._as_grid()
        self.deepest_dip = 0.0 if curves.derived else self._measured_dip()
        """Share of the longest time so far by which time falls at most as rows are added, in all that was measured."""

    def seconds(self, m: Floats, n: int, k: int) -> Floats:
        """Seconds for each of ``m`` rows; none for no rows."""
        efficiency = self.efficiency(n, k)
        at_tokens = (self._launch_s + self._roofline.bound_s(self._tokens, n, k)) / efficiency
        # More rows are faster only by as much as was measured; where that is on one device says nothing about another.
        at_tokens = np.maximum(at_tokens, np.maximum.accumulate(at_tokens) * (1 - self.deepest_dip))
        beyond = (self._launch_s + self._roofline.bound_s(m, n, k)) / efficiency[-1]
        inside = np.interp(m, self._tokens, at_tokens)
        return np.where(m > self._tokens[-1], beyond, np.where(m > 0, inside, 0.0))

    def efficiency(self, n: int, k: int) -> Floats:
        """Efficiency at each of the measured numbers of tokens, at most 1."""
        exact = np.flatnonzero((self._shapes[:, 0] == n) & (self._shapes[:, 1] == k))
        if exact.size:
            row: Floats = self._rows[exact[0]]
            return row
        return self._between_grid(n, k) if self._grid is not None else self._of_nearest(n, k)

    def _measured_dip(self) -> float:
        n, k = self._shapes[:, :1], self._shapes[:, 1:]
        seconds = (self._launch_s + self._measured.bound_s(self._tokens, n, k)) / self._rows
        return float((1 - seconds / np.maximum.accumulate(seconds, axis=1)).max())

    def _as_grid(self) -> Floats | None:
        if len(self._n) < 2 or len(self._k) < 2 or len(self._n) * len(self._k) != len(self._shapes):
            return None
        grid = np.empty((len(self._n), len(self._k), len(self._tokens)))
        grid[np.searchsorted(self._n, self._shapes[:, 0]), np.searchsorted(self._k, self._shapes[:, 1])] = self._rows
        return grid

    def _between_grid(self, n: int, k: int) -> Floats:
        assert self._grid is not None
        inside_n, inside_k = float(np.clip(n, self._n[0], self._n[-1])), float(np.clip(k, self._k[0], self._k[-1]))
        n_low, n_high, n_share = weights_between(self._n, inside_n)
        k_low, k_high, k_share = weights_between(self._k, inside_k)
        seconds = np.zeros(len(self._tokens))
        for i, n_weight in ((n_low, 1 - n_share), (n_high, n_share)):
            for j, k_weight in ((k_low, 1 - k_share), (k_high, k_share)):
                bound_s = self._measured.bound_s(self._tokens, self._n[i], self._k[j])
                seconds += n_weight * k_weight * (self._launch_s + bound_s) / self._grid[i, j]
        bound_s = self._measured.bound_s(self._tokens, inside_n, inside_k)
        return np.minimum((self._launch_s + bound_s) / seconds, 1.0)

    def _of_nearest(self, n: int, k: int) -> Floats:
        apart = np.hypot(np.log2(self._shapes[:, 0] / n), K_NEARNESS * np.log2(self._shapes[:, 1] / k))
        weights = (apart + NEARNESS_OFFSET) ** -NEARNESS_POWER
        return np.asarray(weights @ self._rows / weights.sum(), dtype=np.float64)


@dataclass(frozen=True)
class AssumedGemms:
    """Seconds of one matrix product on a device that was never measured: fixed fractions of peak and bandwidth."""

    roofline: GemmRoofline
    compute_efficiency: float
    memory_efficiency: float

    def seconds(self, m: Floats, n: int, k: int) -> Floats:
        """Seconds for each of ``m`` rows; none for no rows."""
        reached = GemmRoofline(
            self.roofline.flops_per_s * self.compute_efficiency,
            self.roofline.bytes_per_s * self.memory_efficiency,
            self.roofline.weight_bytes,
            self.roofline.activation_bytes,
        )
        return np.where(m > 0, reached.bound_s(m, n, k), 0.0)
