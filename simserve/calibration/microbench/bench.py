"""Many things timed in turn, again and again, so that a drifting machine treats all of them alike."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

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
    """How thoroughly to measure: ``rounds`` through all cases, each time for ``block_s`` seconds.

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
        self._stopwatch, self._guard = stopwatch, guard
        self.timings: list[Timing] = []
        self.disturbances: list[str] = []

    def measure(
        self, cases: Mapping[Key, Call], pace: Pace, *, percentile: float = 20.0, progress: Progress = lambda done: None
    ) -> dict[Key, Timing]:
        """Time every case, a call without arguments, which is warmed up here.

        Of its samples the ``percentile`` counts: 20 for operators, 50 for whole steps.
        """
        blocks = {key: self._block(call, pace.block_s) for key, call in cases.items()}
        taken: dict[Key, list[Sample]] = {key: [] for key in cases}
        retries = pace.retries
        for number in range(pace.rounds):
            retries = self._round(cases, blocks, taken, retries)
            progress((number + 1) / pace.rounds)
        timings = {key: _timing(samples, percentile) for key, samples in taken.items()}
        self.timings += timings.values()
        return timings

    def _block(self, call: Call, block_s: float) -> tuple[int, bool]:
        call()
        estimate_s = self._stopwatch.estimate_s(call)
        return min(max(round(block_s / max(estimate_s, 1e-9)), 1), MOST_CALLS), estimate_s >= SINGLY_S

    def _round(
        self, cases: Mapping[Key, Call], blocks: Mapping[Key, Block], taken: dict[Key, list[Sample]], retries: int
    ) -> int:
        """One pass over all cases, window by window, disturbed ones again; returns what is left of ``retries``."""
        keys = list(cases)
        while keys:
            window, samples, disturbance = self._window(cases, blocks, keys)
            if disturbance is not None:
                self.disturbances.append(disturbance)
                if retries > 0:
                    retries -= 1
                    continue
            for key in window:
                taken[key] += [sample._replace(quiet=sample.quiet and disturbance is None) for sample in samples[key]]
            keys = keys[len(window) :]
        return retries

    def _window(
        self, cases: Mapping[Key, Call], blocks: Mapping[Key, Block], keys: list[Key]
    ) -> tuple[list[Key], dict[Key, list[Sample]], str | None]:
        """Time the first of ``keys`` for WINDOW_S; which they were, what came out, and what disturbed."""
        done: dict[Key, list[Sample]] = {}
        spent_s = 0.0
        self._guard.start()
        for key in keys:
            count, singly = blocks[key]
            done[key] = self._stopwatch.samples(cases[key], count, singly)
            spent_s += count * done[key][0].seconds
            if spent_s >= WINDOW_S:
                break
        return list(done), done, self._guard.disturbance()


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
