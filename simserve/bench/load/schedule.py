"""When requests are due: by rate, by ramp, as a trace has them, or as soon as a slot is free."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from simserve.errors import ConfigError
from simserve.workload import ArrivalProcess, RampArrivals, SteadyArrivals, random_streams

Floats = npt.NDArray[np.float64]

MARGIN = 6.0
"""Standard deviations of requests drawn beyond what a duration is expected to need."""


@dataclass(frozen=True)
class Shape:
    """How load is offered.

    ``request_rate`` is per second; inf sends each request as soon as ``max_concurrency`` lets it. ``ramp`` replaces
    it. ``duration_s`` ends the sending; ``stagger_s`` spreads the first requests of a closed loop over that time.
    Raises :class:`ConfigError` for what cannot be.
    """

    request_rate: float = math.inf
    burstiness: float = 1.0
    ramp: tuple[Literal["linear", "exponential"], float, float] | None = None
    max_concurrency: int | None = None
    duration_s: float | None = None
    stagger_s: float = 0.0
    keeps_arrivals: bool = False

    def __post_init__(self) -> None:
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise ConfigError(f"--max-concurrency is {self.max_concurrency}; give at least 1")
        if self.duration_s is not None and not 0 < self.duration_s < math.inf:
            raise ConfigError(f"--duration is {self.duration_s:g} s; give more than 0")
        if not 0 <= self.stagger_s < math.inf:
            raise ConfigError(f"--stagger is {self.stagger_s:g} s; give 0 or more")
        if self.stagger_s and not self.is_closed_loop:
            raise ConfigError("--stagger is for a closed loop: --max-concurrency without --request-rate or a ramp")
        if self.ramp is not None and not math.isinf(self.request_rate):
            raise ConfigError("--ramp-up-strategy says the rate itself; leave --request-rate out")
        if self.ramp is not None and self.ramp[1] > self.ramp[2]:
            raise ConfigError(f"a ramp goes up: --ramp-up-start-rps {self.ramp[1]:g} is above --ramp-up-end-rps")
        if self.is_closed_loop and self.duration_s is not None and self.max_concurrency is None:
            raise ConfigError("--duration needs --request-rate, a ramp or --max-concurrency, or there is no end")

    @property
    def is_closed_loop(self) -> bool:
        """Whether only answers make room for requests."""
        return math.isinf(self.request_rate) and self.ramp is None and not self.keeps_arrivals


@dataclass(frozen=True)
class RateChange:
    """From ``at_s`` on, the ramp asks for ``rps`` requests per second."""

    rps: int
    at_s: float


@dataclass(frozen=True)
class Schedule:
    """``due_s[i]`` is when request i is due, in seconds from the start, ascending; ``rate`` is what was asked for."""

    due_s: Floats
    rate: float
    changes: list[RateChange] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.due_s)


def make_schedule(shape: Shape, count: int, seed: int, arrivals_s: Floats | None = None) -> Schedule:
    """Times for ``count`` requests, or for as many as ``shape.duration_s`` takes where a rate or ramp is given.

    ``arrivals_s`` are a trace's, used where ``shape.keeps_arrivals``. Without a duration the last request of a steady
    rate is due at exactly ``count / rate``, as in ``vllm bench serve``: given that sum, the gaps of a Poisson process
    are spread as they are here. Raises :class:`simserve.errors.WorkloadError` for a rate that cannot be.
    """
    rng = random_streams(seed).arrivals
    if shape.keeps_arrivals:
        assert arrivals_s is not None
        return _cut(Schedule(arrivals_s, _mean_rate(arrivals_s)), shape.duration_s)
    if shape.is_closed_loop:
        return Schedule(np.zeros(count), math.inf)
    process = _process(shape)
    rate = shape.request_rate if shape.ramp is None else shape.ramp[2]
    if shape.duration_s is not None:
        expected = rate * shape.duration_s
        spread = math.sqrt(expected * max(1.0, 1.0 / shape.burstiness))
        count = max(1, math.ceil(expected + MARGIN * spread))
        if shape.ramp is not None:
            return _cut(_ramp_in_time(shape, rng, count), shape.duration_s)
        return _cut(Schedule(process.draw(rng, count), rate), shape.duration_s)
    due_s = process.draw(rng, count)
    if shape.ramp is None:
        return Schedule(due_s * (count / rate / due_s[-1]), rate)
    return Schedule(due_s, rate, _changes(shape.ramp, due_s))


def _process(shape: Shape) -> ArrivalProcess:
    if shape.ramp is None:
        return SteadyArrivals(shape.request_rate, shape.burstiness)
    strategy, start, end = shape.ramp
    return RampArrivals(start, end, strategy, shape.burstiness)


def _ramp_in_time(shape: Shape, rng: np.random.Generator, count: int) -> Schedule:
    """A ramp that takes about as long as the duration.

    It follows the request's index, so that the number of requests decides how long it takes: the duration over the
    mean gap, which is the mean of one over the rate.
    """
    assert shape.ramp is not None
    assert shape.duration_s is not None
    strategy, start, end = shape.ramp
    part = np.linspace(0.0, 1.0, 1001)
    rates = start + (end - start) * part if strategy == "linear" else start * (end / start) ** part
    fitting = max(1, min(count, round(shape.duration_s / float(np.mean(1.0 / rates)))))
    due_s = RampArrivals(start, end, strategy, shape.burstiness).draw(rng, fitting)
    return Schedule(due_s, end, _changes(shape.ramp, due_s))


def _cut(schedule: Schedule, duration_s: float | None) -> Schedule:
    if duration_s is None:
        return schedule
    kept = schedule.due_s[schedule.due_s < duration_s]
    if not len(kept):
        raise ConfigError(f"no request is due within --duration {duration_s:g} s; give a longer one or a higher rate")
    return Schedule(kept, schedule.rate, [change for change in schedule.changes if change.at_s < duration_s])


def _changes(ramp: tuple[str, float, float], due_s: Floats) -> list[RateChange]:
    """Each whole number of requests per second that the ramp reaches, and when."""
    strategy, start, end = ramp
    part = np.arange(len(due_s)) / max(len(due_s) - 1, 1)
    rates = start + (end - start) * part if strategy == "linear" else start * (end / start) ** part
    whole = np.floor(rates + 1e-9).astype(int)
    firsts = np.flatnonzero(np.diff(whole, prepend=whole[0] - 1))
    return [RateChange(int(whole[at]), float(due_s[at])) for at in firsts]


def _mean_rate(arrivals_s: Floats) -> float:
    span_s = float(arrivals_s[-1] - arrivals_s[0])
    return (len(arrivals_s) - 1) / span_s if span_s > 0 else math.inf
