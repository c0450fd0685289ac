"""The highest load that still meets an SLO, by bracketing and bisection.

All loads see the same requests, with the gaps between them stretched, so that one load differs from the next by the
load alone and not by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from simserve.metrics.result import Result
from simserve.sweep.slo import Slo, Term

WALL_TOLERANCE = 0.1
"""How closely the walls beyond the first are looked for, as a fraction."""

FARTHEST_WALL = 8.0
"""Walls are looked for up to so many times the load at the first."""

FULL = 0.98
"""Of KV blocks, of running requests or of busy time: from here on it is what holds the rest up."""


@dataclass
class Probes:
    """Runs at different loads, each done once; ``whole`` loads are counted, as users are."""

    run: Callable[[float], Result]
    whole: bool = False
    done: dict[float, Result] = field(default_factory=dict)

    def at(self, load: float) -> Result:
        if load not in self.done:
            self.done[load] = self.run(load)
        return self.done[load]

    def rounded(self, load: float) -> float:
        return float(max(1, round(load))) if self.whole else float(f"{load:.6g}")


@dataclass(frozen=True)
class Knee:
    """``load`` meets the objective and ``missed_at``, a little more, does not.

    ``load`` is None if even the least load misses it, ``missed_at`` if even the most meets it.
    """

    load: float | None
    missed_at: float | None


@dataclass(frozen=True)
class Wall:
    """Where a limit gives way: ``load`` is the last that holds (None: none, or too far to look), and why."""

    limit: str
    load: float | None
    because: str


def find_knee(
    probes: Probes, holds: Callable[[Result], bool], first: float, least: float, most: float, tolerance: float
) -> Knee:
    """The highest load at which ``holds``, to within ``tolerance`` (a fraction; whole loads to within one).

    From ``first`` the load is doubled, or halved, until it lies between two probes. Assumes that what does not hold at
    some load does not hold at a higher one.
    """
    good, bad = _bracket(probes, holds, first, least, most)
    while good is not None and bad is not None and bad > good * (1 + tolerance):
        middle = probes.rounded(math.sqrt(good * bad))
        if middle in (good, bad):
            break
        if holds(probes.at(middle)):
            good = middle
        else:
            bad = middle
    return Knee(good, bad)


def _bracket(
    probes: Probes, holds: Callable[[Result], bool], first: float, least: float, most: float
) -> tuple[float | None, float | None]:
    """Two loads between which the knee lies, from what was probed before where that helps."""
    good = max((load for load, result in probes.done.items() if holds(result)), default=None)
    bad = min((load for load, result in probes.done.items() if not holds(result)), default=None)
    if good is not None and bad is not None and bad < good:
        good = max((load for load in probes.done if load < bad and holds(probes.done[load])), default=None)
    load = probes.rounded(first)
    while good is None or bad is None:
        if good is not None:
            load = probes.rounded(min(good * 2, most))
            if load <= good:
                return good, None
        elif bad is not None:
            load = probes.rounded(max(bad / 2, least))
            if load >= bad:
                return None, bad
        if holds(probes.at(load)):
            good = load
        else:
            bad = load
    return good, bad


def walls(probes: Probes, slo: Slo, knee: Knee, least: float, most: float) -> list[Wall]:
    """Which limit gives way first at ``knee`` and why, then where the others would, nearest first."""
    if knee.missed_at is None:
        return []
    beyond = probes.at(knee.missed_at)
    missed = slo.missed(beyond)
    first = [Wall(str(term), knee.load, _because(term, beyond)) for term in missed]
    if not missed:
        first = [Wall("every request is served", knee.load, "some prompts are too long for the KV cache")]
    if knee.load is None:
        return first
    farthest = min(most, knee.load * FARTHEST_WALL)
    later = [_wall(probes, term, knee.missed_at, least, farthest) for term in slo.terms if term not in missed]
    return first + sorted(later, key=lambda wall: math.inf if wall.load is None else wall.load)


def _wall(probes: Probes, term: Term, first: float, least: float, most: float) -> Wall:
    knee = find_knee(probes, lambda result: term.share(result) <= 1.0, first, least, most, WALL_TOLERANCE)
    if knee.missed_at is None:
        return Wall(str(term), None, f"holds up to {most:g} at least")
    return Wall(str(term), knee.load, _because(term, probes.at(knee.missed_at)))


def _because(term: Term, result: Result) -> str:
    """What was used up at a load at which ``term`` is missed, in words."""
    if _number(result, "preemptions") or _number(result, "kv_usage") >= FULL:
        return "the KV cache is full"
    places = _number(result, "max_num_seqs") * max(1.0, _number(result, "replicas"))
    if term.metric == "TTFT" and _number(result, "max_concurrent_requests") > places:
        return f"all {result['max_num_seqs']} places of a step (--max-num-seqs) are taken"
    if _number(result, "busy_fraction") >= FULL and term.metric in ("TTFT", "E2E"):
        return "the device is busy all the time and requests queue up"
    if term.metric in ("TPOT", "ITL"):
        running = _number(result, "mean_running_requests")
        return f"steps get long{f', with {running:,.0f} requests in them on average' if running else ''}"
    return "requests arrive faster than they are served"


def _number(result: Result, key: str) -> float:
    value = result.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0
