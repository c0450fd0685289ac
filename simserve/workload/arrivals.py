"""When requests arrive: pure functions from a random generator to arrival times."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from simserve.errors import WorkloadError


def poisson_arrivals(rng: np.random.Generator, count: int, rate_per_s: float) -> npt.NDArray[np.float64]:
    """``count`` arrival times in seconds, ascending, of a Poisson process that begins at 0.

    The gaps, the one before the first arrival included, are exponential with mean ``1 / rate_per_s``. An infinite
    rate puts every arrival at 0. The total is not rescaled to ``count / rate_per_s``: that would make the sample more
    regular than a Poisson process. Raises :class:`WorkloadError` for a rate that is not above 0.
    """
    if not rate_per_s > 0:
        raise WorkloadError(f"the request rate is {rate_per_s:g} per second; give more than 0, or inf for all at once")
    if math.isinf(rate_per_s):
        return np.zeros(count)
    return np.cumsum(rng.exponential(1.0 / rate_per_s, count))
