"""A pool of clients as columns, and how requests are drawn from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.errors import WorkloadError
from simserve.workload.lengths import draw_weighted
from simserve.workload.servegen.table import LengthTable
from simserve.workload.streams import random_streams
from simserve.workload.transform import check_window, cut_window
from simserve.workload.workload import Workload

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SPAN_S = 600.0
"""What one row of a client's trace stands for."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Spans of 600 s in which one client sends requests, client after client and in order of time.

    ``shape`` is that of the law of the gaps, Weibull where ``is_weibull`` and else Gamma; ``table`` is the place of the
    lengths in :attr:`ClientPool.tables`, and never falls.
    """

    start_s: Floats
    rate_per_s: Floats
    shape: Floats
    is_weibull: npt.NDArray[np.bool_]
    table: Integers

    def within(self, start_s: float, end_s: float) -> Spans:
        """Those that have a part between the two times."""
        kept = (self.start_s > start_s - SPAN_S) & (self.start_s < end_s)
        return Spans(
            start_s=self.start_s[kept],
            rate_per_s=self.rate_per_s[kept],
            shape=self.shape[kept],
            is_weibull=self.is_weibull[kept],
            table=self.table[kept],
        )


@dataclass(frozen=True, eq=False)
class ClientPool:
    """All clients of one service over ``length_s`` seconds."""

    name: str
    length_s: float
    spans: Spans
    tables: list[LengthTable]

    def draw(
        self,
        seed: int,
        *,
        start_s: float = 0.0,
        length_s: float = math.inf,
        request_rate: float | None = None,
        rate_scale: float = 1.0,
    ) -> Workload:
        """Requests of the part from ``start_s`` on, ``length_s`` long or to the end, which becomes time 0 on.

        In every 600 s each client sends as many requests as it did, times ``rate_scale``, or times what makes
        ``request_rate`` per second the mean of the part; a fraction of a request is one with that chance. Gaps follow
        the client's law there, stretched together to fill the 600 s (so the law's scale and coefficient of variation,
        which its shape and rate imply, are not needed). Raises :class:`WorkloadError` if nothing is left.
        """
        check_window(start_s, length_s)
        end_s = min(start_s + length_s, self.length_s)
        spans = self.spans.within(start_s, end_s)
        if not len(spans.start_s):
            raise WorkloadError(
                f"{self.name} has no request from {start_s:g} s on for {length_s:g} s; it covers {self.length_s:g} s"
            )
        scale = rate_scale
        if request_rate is not None:
            covered_s = np.minimum(spans.start_s + SPAN_S, end_s) - np.maximum(spans.start_s, start_s)
            scale *= request_rate * (end_s - start_s) / float(covered_s @ spans.rate_per_s)
        if not 0 < scale < math.inf:
            raise WorkloadError("clients cannot send at this rate; give a rate and a rate scale above 0, and finite")
        return cut_window(self._requests(spans, scale, seed), start_s, length_s)

    def _requests(self, spans: Spans, scale: float, seed: int) -> Workload:
        """The requests of whole spans, at the pool's times."""
        streams = random_streams(seed)
        expected = spans.rate_per_s * SPAN_S * scale
        counts = np.floor(expected + streams.rate_scale.random(len(expected))).astype(np.int64)
        if not counts.any():
            raise WorkloadError(f"not one request of {self.name} is left at that rate; give a higher one")
        span = np.repeat(np.arange(len(counts)), counts)
        arrival_s = spans.start_s[span] + SPAN_S * _places(spans, counts, streams.arrivals)
        table = spans.table[span]
        inputs = self._lengths("input_tokens", table, streams.input_lengths.random(len(span)))
        outputs = self._lengths("output_tokens", table, streams.output_lengths.random(len(span)))
        order = np.argsort(arrival_s, kind="stable")
        return Workload(self.name, arrival_s[order], inputs[order], outputs[order])

    def _lengths(self, field: str, table: Integers, uniform: Floats) -> Integers:
        """The length of each request, by the table it has; ``table`` never falls."""
        numbers, starts = np.unique(table, return_index=True)
        parts = np.split(uniform, starts[1:])
        drawn = [
            draw_weighted(part, *self.tables[number].chances(field))
            for number, part in zip(numbers.tolist(), parts, strict=True)
        ]
        return np.concatenate(drawn)


def _places(spans: Spans, counts: Integers, rng: np.random.Generator) -> Floats:
    """Where in its span each request falls, from 0 to 1: gaps by the law, one more than requests, that sum to 1."""
    gap_counts = counts + 1
    span = np.repeat(np.arange(len(counts)), gap_counts)
    shape, is_weibull = spans.shape[span], spans.is_weibull[span]
    gaps = np.empty(len(span))
    gaps[~is_weibull] = rng.standard_gamma(shape[~is_weibull])
    gaps[is_weibull] = rng.weibull(shape[is_weibull])
    gaps = np.maximum(gaps, np.finfo(np.float64).tiny)  # gaps too short for a float must not sum to 0
    ends = np.cumsum(gap_counts)
    gaps /= np.add.reduceat(gaps, ends - gap_counts)[span]
    places = np.cumsum(gaps) - span  # every span before adds 1
    return np.clip(np.delete(places, ends - 1), 0.0, 1.0)
