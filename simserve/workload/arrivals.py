"""When requests arrive: processes that draw arrival times from a random generator.

Each draws gaps of mean 1 and stretches them by the rate of the moment. The gap before the first arrival counts too. As
far as they meet, the laws are those of ``vllm bench serve``, but for one thing: the last arrival is not forced to
``count / rate``, which would make the sample more regular than the process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from simserve.errors import WorkloadError

Floats = npt.NDArray[np.float64]


class ArrivalProcess(Protocol):
    """Draws arrival times; ``str`` of it is short, for the name of a workload."""

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """``count`` times in seconds since the start, ascending, taken from ``rng`` alone."""
        ...


@dataclass(frozen=True)
class SteadyArrivals:
    """``rate_per_s`` requests per second on average, for good; inf lets all arrive at 0.

    Gaps follow Gamma(shape ``burstiness``, scale ``1 / (rate_per_s * burstiness)``): their coefficient of variation is
    ``1 / sqrt(burstiness)``. 1 is a Poisson process, less is burstier, inf is one arrival every ``1 / rate_per_s``.
    Raises :class:`WorkloadError` for a rate or burstiness that is not above 0.
    """

    rate_per_s: float
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        if not self.rate_per_s > 0:
            raise WorkloadError(
                f"the request rate is {self.rate_per_s:g} per second; give more than 0, or inf for all at once"
            )
        _check_burstiness(self.burstiness)

    def __str__(self) -> str:
        return f"{self.rate_per_s:g}{_suffix(self.burstiness)}"

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        if math.isinf(self.rate_per_s):
            return np.zeros(count)
        return np.cumsum(_unit_gaps(rng, count, self.burstiness) * (1.0 / self.rate_per_s))


@dataclass(frozen=True)
class RampArrivals:
    """A rate that goes from ``start_per_s`` to ``end_per_s`` over the requests.

    Request ``i`` of ``n`` comes after a gap at rate ``a + (b - a) p`` (linear) or ``a (b / a)**p`` (exponential), where
    ``p = i / (n - 1)``. As in vLLM the ramp follows the *index*: half of the requests come before the middle rate, so
    that a slow start lasts longer than a fast end. Raises :class:`WorkloadError` for rates that are not above 0.
    """

    start_per_s: float
    end_per_s: float
    strategy: Literal["linear", "exponential"] = "linear"
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        for rate in (self.start_per_s, self.end_per_s):
            if not 0 < rate < math.inf:
                raise WorkloadError(f"a ramp cannot pass through {rate:g} requests per second; give rates above 0")
        _check_burstiness(self.burstiness)

    def __str__(self) -> str:
        return f"{self.start_per_s:g}..{self.end_per_s:g}-{self.strategy}{_suffix(self.burstiness)}"

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        part = np.arange(count) / max(count - 1, 1)
        if self.strategy == "linear":
            rates = self.start_per_s + (self.end_per_s - self.start_per_s) * part
        else:
            rates = self.start_per_s * (self.end_per_s / self.start_per_s) ** part
        return np.cumsum(_unit_gaps(rng, count, self.burstiness) / rates)


@dataclass(frozen=True)
class BurstArrivals:
    """``burst_per_s`` for ``on_s`` seconds, then ``base_per_s`` (0: silence) for ``off_s`` seconds, and so on.

    The gaps are stretched moment by moment with the rate, so that with ``burstiness`` 1 this is a Poisson process of
    that rate. Raises :class:`WorkloadError` for durations or a burst rate not above 0, or a base rate below 0.
    """

    burst_per_s: float
    on_s: float
    off_s: float
    base_per_s: float = 0.0
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.burst_per_s < math.inf and 0 <= self.base_per_s < math.inf):
            raise WorkloadError(
                f"bursts of {self.burst_per_s:g} requests per second with {self.base_per_s:g} between them cannot be;"
                " give a burst rate above 0, and 0 or more between bursts"
            )
        if not (0 < self.on_s < math.inf and 0 < self.off_s < math.inf):
            raise WorkloadError(
                f"bursts of {self.on_s:g} s with pauses of {self.off_s:g} s cannot be; give more than 0 for both"
            )
        _check_burstiness(self.burstiness)

    def __str__(self) -> str:
        shape = f"{self.base_per_s:g}^{self.burst_per_s:g}-{self.on_s:g}s/{self.off_s:g}s"
        return shape + _suffix(self.burstiness)

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        in_burst = self.burst_per_s * self.on_s
        in_cycle = in_burst + self.base_per_s * self.off_s
        expected = np.cumsum(_unit_gaps(rng, count, self.burstiness))  # arrivals that the rate calls for up to then
        cycle = np.floor(expected / in_cycle)
        rest = expected - cycle * in_cycle
        after_burst = np.maximum(rest - in_burst, 0.0)
        pause_s = after_burst / self.base_per_s if self.base_per_s else np.zeros(count)
        within_s = np.clip(np.minimum(rest, in_burst) / self.burst_per_s, 0.0, None) + np.minimum(pause_s, self.off_s)
        # Rounding may put an arrival that falls on the edge of a cycle a hair before the one ahead of it.
        return np.maximum.accumulate(cycle * (self.on_s + self.off_s) + within_s)


def _unit_gaps(rng: np.random.Generator, count: int, burstiness: float) -> Floats:
    """Gaps of mean 1 and coefficient of variation ``1 / sqrt(burstiness)``."""
    if burstiness == 1:
        return rng.standard_exponential(count)
    if math.isinf(burstiness):
        return np.ones(count)
    return rng.standard_gamma(burstiness, count) / burstiness


def _check_burstiness(burstiness: float) -> None:
    if not burstiness > 0:
        raise WorkloadError(
            f"the burstiness is {burstiness:g}; give more than 0: 1 for a Poisson process, less for bursts,"
            " inf for even gaps"
        )


def _suffix(burstiness: float) -> str:
    return "" if burstiness == 1 else f"~{burstiness:g}"
