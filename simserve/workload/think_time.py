"""How long a user thinks between an answer and the next request."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.errors import WorkloadError


@dataclass(frozen=True)
class ThinkTime:
    """``mean_s`` seconds on average, with coefficient of variation ``cv``: 0 is constant, 1 exponential, else gamma.

    Raises :class:`WorkloadError` for a number that is below 0 or not finite.
    """

    mean_s: float
    cv: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.mean_s < math.inf and 0 <= self.cv < math.inf):
            raise WorkloadError(f"the think time '{self.mean_s:g}:{self.cv:g}' cannot be; give 0 or more for both")

    def draw(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
        """``count`` think times in seconds, taken from ``rng`` alone."""
        if self.cv == 0 or self.mean_s == 0:
            return np.full(count, self.mean_s)
        shape = 1 / (self.cv * self.cv)
        return rng.standard_gamma(shape, count) * (self.mean_s / shape)


def parse_think_time(text: str) -> ThinkTime:
    """``SECONDS`` or ``SECONDS:CV`` as a :class:`ThinkTime`. Raises :class:`WorkloadError`."""
    mean, _, cv = text.partition(":")
    try:
        return ThinkTime(float(mean), float(cv) if ":" in text else 0.0)
    except ValueError:
        raise WorkloadError(
            f"the think time '{text}' is not understood; give SECONDS, or SECONDS:CV for times that vary"
        ) from None
