"""Numbers drawn as a generation file says: ``{"distribution": "lognormal", "average": 200, "max": 5000}``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.errors import WorkloadError

MEDIAN_RATIO = 0.85
"""Median over average of a lognormal of which only the average is given."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drawer:
    """Draws whole or broken numbers, none above ``most``."""

    draw_raw: Callable[[np.random.Generator, int], Floats]
    most: float = math.inf

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        """``count`` whole numbers."""
        values = np.minimum(self.draw_raw(rng, count), self.most)
        return [round(value) for value in values.tolist()]


def parse_distribution(where: str, spec: Any) -> Drawer:
    """The distribution that ``spec`` describes; raises :class:`WorkloadError`, naming ``where``, for anything else."""
    if not isinstance(spec, Mapping) or spec.get("distribution") not in KINDS:
        raise WorkloadError(f"{where} must be {{distribution: one of {', '.join(KINDS)}, ...}}")
    required, optional, make = KINDS[spec["distribution"]]
    fields = {name: value for name, value in spec.items() if name != "distribution"}
    unknown = set(fields) - set(required) - set(optional)
    if not set(required) <= set(fields) and "mean" not in fields:
        raise WorkloadError(f"{where} needs {', '.join(required)} for the distribution {spec['distribution']}")
    if unknown:
        raise WorkloadError(f"{where} has {', '.join(sorted(unknown))}, which {spec['distribution']} does not know")
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in fields.values()):
        raise WorkloadError(f"{where} must have numbers only")
    try:
        return Drawer(make(fields), float(fields.get("max", math.inf)) if "max" in optional else math.inf)
    except (ValueError, KeyError) as error:
        raise WorkloadError(f"{where}: {error}") from None


def _constant(fields: Mapping[str, Any]) -> Callable[[np.random.Generator, int], Floats]:
    return lambda rng, count: np.full(count, float(fields["value"]))


def _uniform(fields: Mapping[str, Any]) -> Callable[[np.random.Generator, int], Floats]:
    low, high = fields["min"], fields["max"]
    if low > high:
        raise ValueError("min must not be above max")
    if isinstance(low, int) and isinstance(high, int):
        return lambda rng, count: rng.integers(low, high, count, endpoint=True).astype(np.float64)
    return lambda rng, count: rng.uniform(low, high, count)


def _zipf(fields: Mapping[str, Any]) -> Callable[[np.random.Generator, int], Floats]:
    if fields["alpha"] <= 1:
        raise ValueError("alpha of zipf must be above 1")
    return lambda rng, count: rng.zipf(fields["alpha"], count).astype(np.float64)


def _poisson(fields: Mapping[str, Any]) -> Callable[[np.random.Generator, int], Floats]:
    if fields["alpha"] < 0:
        raise ValueError("alpha of poisson must not be negative")
    return lambda rng, count: rng.poisson(fields["alpha"], count).astype(np.float64)


def _lognormal(fields: Mapping[str, Any]) -> Callable[[np.random.Generator, int], Floats]:
    """By average and median, or by mean and deviation of the logarithm.

    With m = average: sigma^2 = 2 ln(1 / ratio) and mu = ln(m ratio), since the median is exp(mu) and the mean
    exp(mu + sigma^2 / 2). Draws are then scaled to hit the average.
    """
    if "mean" in fields or "sigma" in fields:
        return lambda rng, count: rng.lognormal(fields["mean"], fields["sigma"], count)
    average, ratio = float(fields["average"]), float(fields.get("median_ratio", MEDIAN_RATIO))
    if not (average > 0 and 0 < ratio < 1):
        raise ValueError("average must be above 0 and median_ratio between 0 and 1")
    sigma, mu = math.sqrt(2 * math.log(1 / ratio)), math.log(average * ratio)

    def draw(rng: np.random.Generator, count: int) -> Floats:
        values = rng.lognormal(mu, sigma, count)
        return values * (average / values.mean()) if count > 1 else values

    return draw


Make = Callable[[Mapping[str, Any]], Callable[[np.random.Generator, int], Floats]]

KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Make]] = {
    "constant": (("value",), (), _constant),
    "uniform": (("min", "max"), (), _uniform),
    "zipf": (("alpha",), ("max",), _zipf),
    "poisson": (("alpha",), ("max",), _poisson),
    "lognormal": (("average",), ("median_ratio", "max", "mean", "sigma"), _lognormal),
}
"""By name: fields that must be there, fields that may, and how to draw."""
