"""The part of a run in which the load was what was asked for, without filling up at first and draining at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simserve.bench.measure.figures import tokens_per_chunk
from simserve.bench.measure.outcome import Outcome
from simserve.metrics.distribution import Distribution, distribution

NEARLY_FULL = 0.95
"""Share of the concurrency limit at which a closed loop counts as full."""


@dataclass(frozen=True)
class SteadyState:
    """Seconds ``start_s`` to ``end_s`` since the run's start. Throughput is of what was done in between, requests by
    the part of them; latencies are of the requests that were sent in between."""

    start_s: float
    end_s: float
    requests: int
    request_throughput: float
    output_throughput: float
    ttft: Distribution
    e2el: Distribution

    @property
    def duration_s(self) -> float:
        """Length of the window."""
        return self.end_s - self.start_s


def steady_state(
    outcomes: Sequence[Outcome], start_s: float, max_concurrency: int | None, *, is_closed_loop: bool
) -> SteadyState | None:
    """The steady window: at least 95 % of the places taken, or for a rate from the first arrival to the last.

    None if there is no such time.
    """
    window = _full(outcomes, max_concurrency or len(outcomes)) if is_closed_loop else _arrivals(outcomes)
    if window is None:
        return None
    first_s, last_s = window
    ok = [one for one in outcomes if one.ok]
    inside = [one for one in ok if first_s <= one.sent_s < last_s]
    # A request counts by the part of it that lies inside: whole waves of answers end at the window's very edge.
    done = sum(max(min(one.end_s, last_s) - max(one.sent_s, first_s), 0.0) / max(one.e2el_s, 1e-9) for one in ok)
    tokens = 0.0
    for one in ok:
        times = np.asarray(one.token_times_s)
        tokens += float(tokens_per_chunk(one)[(times >= first_s) & (times < last_s)].sum())
    ttft = np.array([one.ttft_s for one in inside])
    span_s = last_s - first_s
    return SteadyState(
        start_s=first_s - start_s,
        end_s=last_s - start_s,
        requests=len(inside),
        request_throughput=done / span_s,
        output_throughput=tokens / span_s,
        ttft=distribution(ttft[~np.isnan(ttft)], (99.0,)),
        e2el=distribution(np.array([one.e2el_s for one in inside]), (99.0,)),
    )


def _full(outcomes: Sequence[Outcome], places: int) -> tuple[float, float] | None:
    """From when the loop was first nearly full to when it last was."""
    if not outcomes:
        return None
    times = np.concatenate([[one.sent_s for one in outcomes], [one.end_s for one in outcomes]])
    changes = np.repeat([1, -1], len(outcomes))
    order = np.lexsort((-changes, times))  # arrivals first: a place that is refilled at once was never empty
    level = np.cumsum(changes[order])
    full = np.flatnonzero(level >= NEARLY_FULL * places)
    if not full.size:
        return None
    first_s, last_s = float(times[order][full[0]]), float(times[order][min(full[-1] + 1, len(level) - 1)])
    return (first_s, last_s) if last_s > first_s else None


def _arrivals(outcomes: Sequence[Outcome]) -> tuple[float, float] | None:
    if len(outcomes) < 2:
        return None
    due = [one.due_s for one in outcomes]
    return (min(due), max(due)) if max(due) > min(due) else None
