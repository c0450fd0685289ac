"""Many things timed in turn, again and again, so that a drifting machine treats all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from simserve.calibration.microbench.contention import Guard
from simserve.calibration.microbench.stopwatch import Call, Sample, Stopwatch

WINDOW_S = 0.4
"""Length of what the guard judges at once: long enough for counters that tick every 10 ms."""
FEWEST_QUIET = 3
MOST_CALLS = 2000
SINGLY_S = 0.5e-3
"""Calls from this length on are timed one by one: what reading the clocks costs no longer matters."""
Block = tuple[int, bool]
"""How many calls, and whether each is timed by itself."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Pace:
    """How thoroughly to measure: ``rounds`` through all cases, each time for ``block_s`` seconds, or
    a single call.

    ``retries`` is how often a disturbed window is measured again, all rounds together.
    """

    rounds: int
    block_s: float
    retries: int = 6


@dataclass(frozen=True)
class Timing:
    """Seconds of one case; ``noise`` is half the spread of its samples (10th to 90th percentile) over their median."""

    seconds: float
    noise: float
    samples: int
    quiet: bool


class Progress(Protocol):
    """Hears how far a measurement is: ``done`` of 1."""

    def __call__(self, done: float) -> None: ...


class Bench:
    """Times cases, and remembers all timings and who disturbed them."""

    def __init__(self, stopwatch: Stopwatch, guard: Guard) -> None:
        self.stopwatch, self.guard = stopwatch, guard
        self.timings: list[Timing] = []
        self.disturbances: list[str] = []

    def measure(
        self, cases: Mapping[Key, Call], pace: Pace, *, percentile: float = 20.0, progress: Progress = lambda done: None
    ) -> dict[Key, Timing]:
        """Time every case, a call without arguments, which is warmed up here; see :meth:`Series.timings`."""
        series = Series(self, cases, pace)
        for number in range(pace.rounds):
            series.round()
            progress((number + 1) / pace.rounds)
        return series.timings(percentile)


class Series(Generic[Key]):
    """Cases under way: rounds through all of them, between which other things may be done.

    Each round has an order of its own, by chance: what a case finds in the caches differs, as in an engine. A case that
    ``follows_itself`` finds what a call before it left, which is not timed.
    """

    def __init__(
        self,
        bench: Bench,
        cases: Mapping[Key, Call],
        pace: Pace,
        follows_itself: Callable[[Key], bool] = lambda key: False,
    ) -> None:
        self._bench, self._cases, self._retries = bench, cases, pace.retries
        self._follows_itself = follows_itself
        self._blocks = {key: self._block(call, pace.block_s) for key, call in cases.items()}
        self._taken: dict[Key, list[Sample]] = {key: [] for key in cases}
        self._random = np.random.default_rng(0)

    def round(self) -> None:
        """One pass over all cases, window by window; disturbed ones again, as long as there are retries."""
        keys = list(self._cases)
        self._random.shuffle(keys)
        while keys:
            samples, disturbance = self._window(keys)
            if disturbance is not None:
                self._bench.disturbances.append(disturbance)
                if self._retries > 0:
                    self._retries -= 1
                    continue
            for key, taken in samples.items():
                self._taken[key] += [sample._replace(quiet=sample.quiet and disturbance is None) for sample in taken]
            keys = keys[len(samples) :]

    def timings(self, percentile: float) -> dict[Key, Timing]:
        """Of each case's samples so far the ``percentile``: 20 for operators, 50 for whole steps."""
        timings = {key: _timing(samples, percentile) for key, samples in self._taken.items()}
        self._bench.timings += timings.values()
        return timings

    def _block(self, call: Call, block_s: float) -> Block:
        """One call if no more are asked for, which needs no estimate: whole steps are too long to be made in vain."""
        if block_s == 0:
            call()
            return 1, True
        estimate_s = self._bench.stopwatch.estimate_s(call)
        return min(max(round(block_s / max(estimate_s, 1e-9)), 1), MOST_CALLS), estimate_s >= SINGLY_S

    def _window(self, keys: list[Key]) -> tuple[dict[Key, list[Sample]], str | None]:
        """Time the first of ``keys`` for WINDOW_S: what came out, and what disturbed."""
        done: dict[Key, list[Sample]] = {}
        spent_s = 0.0
        self._bench.guard.start()
        for key in keys:
            count, singly = self._blocks[key]
            if self._follows_itself(key):
                self._cases[key]()
            done[key] = self._bench.stopwatch.samples(self._cases[key], count, singly)
            spent_s += count * done[key][0].seconds
            if spent_s >= WINDOW_S:
                break
        return done, self._bench.guard.disturbance()


def noise_of(timings: Sequence[Timing]) -> float:
    """Median noise."""
    return float(np.median([timing.noise for timing in timings]))


def unquiet_of(timings: Sequence[Timing]) -> float:
    """Share of them for which there was no quiet moment."""
    return float(np.mean([not timing.quiet for timing in timings]))


def _timing(samples: list[Sample], percentile: float) -> Timing:
    """Of the quiet samples, if there are enough of them, else of all."""
    quiet = [sample.seconds for sample in samples if sample.quiet]
    enough = len(quiet) >= min(FEWEST_QUIET, len(samples))
    seconds = np.array(quiet if enough else [sample.seconds for sample in samples])
    low, middle, high = np.percentile(seconds, (10, 50, 90))
    return Timing(float(np.percentile(seconds, percentile)), float((high - low) / 2 / middle), len(seconds), enough)
