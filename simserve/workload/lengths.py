"""How long prompts and answers are: distributions of token counts, and how they are written on a command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from simserve.errors import WorkloadError

Tokens = npt.NDArray[np.int64]

Column = Literal["input_tokens", "output_tokens"]

MOST_TOKENS = 2**31 - 1
"""No length is longer: a lognormal tail must stay a number."""

MOST_RANKS = 10_000_000
"""Longest maximum of a Zipf distribution, whose probabilities are one table."""

SPECS = "N, uniform:LOW:HIGH, lognormal:MEAN:SIGMA, zipf:EXPONENT:MAX"


class LengthDistribution(Protocol):
    """Draws lengths in tokens, every one at least 1; ``str`` of it is what :func:`parse_length` reads."""

    def draw(self, rng: np.random.Generator, count: int) -> Tokens:
        """``count`` lengths in tokens, taken from ``rng`` alone."""
        ...


@dataclass(frozen=True)
class ConstantLength:
    """Every request has the same ``tokens``. Raises :class:`WorkloadError` if that is less than 1."""

    tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.tokens <= MOST_TOKENS:
            trouble = "too short; give at least 1" if self.tokens < 1 else f"too long; give at most {MOST_TOKENS}"
            raise WorkloadError(f"a length of {self.tokens} tokens is {trouble}")

    def __str__(self) -> str:
        return str(self.tokens)

    def draw(self, rng: np.random.Generator, count: int) -> Tokens:
        """``count`` times the constant; ``rng`` is left as it was."""
        return np.full(count, self.tokens, dtype=np.int64)


@dataclass(frozen=True)
class UniformLength:
    """Every length from ``low`` to ``high``, both included, is as likely as any other."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high <= MOST_TOKENS:
            raise WorkloadError(
                f"lengths from {self.low} to {self.high} tokens cannot be drawn; give at least 1, the smaller first"
            )

    def __str__(self) -> str:
        return f"uniform:{self.low}:{self.high}"

    def draw(self, rng: np.random.Generator, count: int) -> Tokens:
        return rng.integers(self.low, self.high, count, endpoint=True)


@dataclass(frozen=True)
class LognormalLength:
    """``mean_tokens`` on average (the arithmetic mean), where the logarithm of a length has deviation ``sigma``.

    The median is ``mean_tokens * exp(-sigma**2 / 2)``. Lengths are rounded, and below 1 they are 1.
    """

    mean_tokens: float
    sigma: float

    def __post_init__(self) -> None:
        if not (1 <= self.mean_tokens <= MOST_TOKENS and 0 <= self.sigma < math.inf):
            raise WorkloadError(
                f"a lognormal length of mean {self.mean_tokens:g} and sigma {self.sigma:g} cannot be drawn; give a mean"
                " of at least 1 token and a sigma (of the length's logarithm) of 0 or more"
            )

    def __str__(self) -> str:
        return f"lognormal:{self.mean_tokens:g}:{self.sigma:g}"

    def draw(self, rng: np.random.Generator, count: int) -> Tokens:
        mu = math.log(self.mean_tokens) - self.sigma * self.sigma / 2
        return np.rint(np.clip(rng.lognormal(mu, self.sigma, count), 1, MOST_TOKENS)).astype(np.int64)


@dataclass(frozen=True)
class ZipfLength:
    """A length of ``k`` tokens is as likely as ``k**-exponent``, for ``k`` from 1 to ``max_tokens``."""

    exponent: float
    max_tokens: int

    def __post_init__(self) -> None:
        if not (0 <= self.exponent < math.inf and 1 <= self.max_tokens <= MOST_RANKS):
            raise WorkloadError(
                f"a zipf length of exponent {self.exponent:g} and maximum {self.max_tokens} cannot be drawn; give an"
                f" exponent of 0 or more and a maximum from 1 to {MOST_RANKS}"
            )

    def __str__(self) -> str:
        return f"zipf:{self.exponent:g}:{self.max_tokens}"

    def draw(self, rng: np.random.Generator, count: int) -> Tokens:
        chances = np.arange(1, self.max_tokens + 1, dtype=np.float64) ** -self.exponent
        return draw_weighted(rng.random(count), np.arange(1, self.max_tokens + 1), chances)


@dataclass(frozen=True, eq=False)
class EmpiricalLength:
    """Draws with replacement from ``observed`` lengths (each at least 1), which come from ``source``."""

    observed: Tokens
    source: str

    def __str__(self) -> str:
        return f"trace:{self.source}"

    def draw(self, rng: np.random.Generator, count: int) -> Tokens:
        return self.observed[rng.integers(0, len(self.observed), count)]


def draw_weighted(uniform: npt.NDArray[np.float64], values: Tokens, weights: npt.NDArray[np.float64]) -> Tokens:
    """For each number of ``uniform`` (in [0, 1)) one of ``values``, as likely as its weight (>= 0, not all 0)."""
    below = np.cumsum(weights)
    place = np.searchsorted(below, uniform * below[-1], side="right")
    last = int(np.searchsorted(below, below[-1]))  # where rounding would lead past the last that can be
    return np.asarray(values[np.minimum(place, last)])


def parse_length(text: str, option: str, column: Column | None = None) -> LengthDistribution:
    """The distribution that ``text``, the value of ``option``, describes: one of :data:`SPECS`.

    ``trace:FILE`` draws from ``column`` there, and is refused without one. Input and output lengths are drawn apart,
    also when both come from one trace. Raises :class:`WorkloadError`, naming ``option``.
    """
    kind, _, rest = text.partition(":")
    if kind == "trace" and rest and column is not None:
        return _observed(rest, column)
    try:
        if ":" not in text:
            return ConstantLength(int(text))
        first, second = rest.split(":")
        return KINDS[kind](first, second)
    except WorkloadError as error:
        raise WorkloadError(f"{option}: {error}") from None
    except (ValueError, KeyError):
        specs = SPECS if column is None else f"{SPECS}, or trace:FILE"
        raise WorkloadError(f"{option} is '{text}', which is not understood; give {specs}") from None


KINDS: dict[str, Callable[[str, str], LengthDistribution]] = {
    "uniform": lambda low, high: UniformLength(int(low), int(high)),
    "lognormal": lambda mean, sigma: LognormalLength(float(mean), float(sigma)),
    "zipf": lambda exponent, longest: ZipfLength(float(exponent), int(longest)),
}
"""Distributions with two numbers, by the name they have on a command line."""


def _observed(source: str, column: Column) -> EmpiricalLength:
    from simserve.workload.traces import read_trace  # here, since most workloads read no trace

    trace = read_trace(source)
    return EmpiricalLength(trace.input_tokens if column == "input_tokens" else trace.output_tokens, trace.name)
