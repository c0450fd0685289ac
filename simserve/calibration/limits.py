"""What the fits share: the device's limits, where measurements come from, and what a warm cache makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from simserve.calibration.points import Floats
from simserve.hardware import HardwareProfile
from simserve.models import dtype_bytes_of

CACHE_REACH = 1.25
"""Up to so many times the last cache's size a repeated measurement still reads part of its data from it."""
USUAL_HEAD_DIM = 128
"""Of all attention that others have measured."""


@dataclass(frozen=True)
class Limits:
    """Peak, bandwidth and last cache of a device; bytes of an element, and width of a head, of what was measured."""

    flops_per_s: float
    bytes_per_s: float
    cache_bytes: float
    element_bytes: float = 2
    head_dim: int = USUAL_HEAD_DIM

    @classmethod
    def of(cls, hardware: HardwareProfile, dtype: str = "bfloat16") -> Limits:
        return cls(
            hardware.peak_flops_for(dtype),
            hardware.bandwidth_bytes_per_s,
            hardware.l2_bytes or 0,
            dtype_bytes_of(dtype),
        )

    @property
    def kv_bytes(self) -> float:
        """Of one token's keys and values in one KV head."""
        return 2 * self.head_dim * self.element_bytes

    def gemm_s(self, m: Floats, n: float, k: float) -> Floats:
        """Seconds that C[m, n] = A[m, k] B[k, n] takes at least."""
        moved = self.element_bytes * (n * k + m * (n + k))
        return np.maximum(2 * m * n * k / self.flops_per_s, moved / self.bytes_per_s)


@dataclass(frozen=True)
class Source:
    """Provenance of a table."""

    source: str
    licence: str
    measured_with: str

    def fields(self, points: int) -> dict[str, Any]:
        return {
            "source": self.source,
            "licence": self.licence,
            "measured_with": self.measured_with,
            "points": points,
        }


def cap_cached(seconds: Floats, bound_s: Floats, read_bytes: Floats, limits: Limits) -> Floats:
    """Slow down points whose data stayed in the last cache between repetitions, as weights and KV cache never do.

    They get at most the efficiency that the best of those read from memory reach (their 95th percentile).
    """
    efficiency = bound_s / seconds
    from_memory = (
        ~np.isnan(seconds) & (read_bytes > 2 * limits.cache_bytes) & (bound_s <= read_bytes / limits.bytes_per_s * 1.5)
    )
    if not from_memory.any():
        return np.where(efficiency > 1, bound_s, seconds)
    best = min(float(np.percentile(efficiency[from_memory], 95)), 1.0)
    cached = (read_bytes <= CACHE_REACH * limits.cache_bytes) & (bound_s <= read_bytes / limits.bytes_per_s * 1.5)
    return np.where(cached & (efficiency > best), bound_s / best, np.where(efficiency > 1, bound_s, seconds))


def three_digits(values: Floats) -> tuple[float, ...]:
    """``values`` rounded: three digits are more than a measurement repeats."""
    return tuple(float(f"{value:.3g}") for value in values)
