"""Trying one candidate: how many replicas carry the load, and at what load they break."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simserve.errors import SimServeError
from simserve.metrics.result import Result
from simserve.sweep.plan.candidates import Candidate
from simserve.sweep.plan.question import Question
from simserve.sweep.search import Probes, find_knee, walls
from simserve.sweep.settings import RunOnce, Settings, Value, merged

BREAK_TOLERANCE = 0.05
"""How closely the load at which it breaks is looked for."""

FARTHEST_BREAK = 4.0
"""It is looked for up to so many times the load that was asked for."""

CLOSE_TO_LIMIT = 0.5
"""Of a limit: a replica whose latency without load is below needs no more devices for speed."""

NO_BANDS: Settings = {"bands": False}
"""Of runs that only ask whether the SLO is met."""

TUNED: Sequence[Settings] = (
    {},
    {"max_num_batched_tokens": 512, "max_num_seqs": 256},
    {"max_num_batched_tokens": 2048},
    {"max_num_batched_tokens": 8192},
    {"max_num_seqs": 64},
)
"""Settings that are tried on the best; {} is the engine's own choice. None changes what the model answers."""


@dataclass(frozen=True)
class Sized:
    """``replicas`` of ``candidate`` that carry the load; None if none do, with the reason. ``nearest`` is the run that
    came nearest to the SLO then.
    """

    candidate: Candidate
    replicas: int | None
    because: str = ""
    nearest: Result | None = None


@dataclass(frozen=True)
class Offer:
    """An answer: a candidate with its number and settings, what it does, and at which load it breaks, and why."""

    candidate: Candidate
    replicas: int
    tuned: Settings
    settings: Settings
    """Of the run that the figures are from."""
    result: Result
    breaks_at: float | None
    """None: not within :data:`FARTHEST_BREAK` times the load."""
    because: str


def size(run_once: RunOnce, question: Question, group: Sequence[Candidate]) -> list[Sized]:
    """The fewest replicas for each of ``group``, the same hardware with more and more devices a replica.

    More devices are left untried once fewer are fast enough with nobody else there: they would cost more.
    """
    sized: list[Sized] = []
    for candidate in group:
        try:
            unloaded = run_once(
                merged(candidate.settings(question), _percentiles(question), NO_BANDS, question.unloaded())
            )
        except SimServeError as error:
            sized.append(Sized(candidate, None, str(error)))
            continue
        missed = question.slo.missed(unloaded)
        if missed:
            what = " and ".join(f"{term} is {unloaded[term.key]:.3g} ms" for term in missed)
            sized.append(Sized(candidate, None, f"even a single request misses it: {what}", unloaded))
            continue
        sized.append(_fewest(run_once, question, candidate))
        if max(term.share(unloaded) for term in question.slo.terms) < CLOSE_TO_LIMIT and sized[-1].replicas:
            break
    return sized


def refine(run_once: RunOnce, question: Question, found: Sized) -> Offer:
    """Try other settings on what ``size`` found, keep the best, and look where it breaks."""
    assert found.replicas is not None
    replicas, tuned = found.replicas, TUNED[0]
    for settings in TUNED[1:]:
        if any(name in question.engine for name in settings):
            continue
        while replicas > 1 and _meets(run_once, question, found.candidate, replicas - 1, settings):
            replicas, tuned = replicas - 1, settings
    common = merged(found.candidate.settings(question, replicas), tuned, _percentiles(question))
    probes = Probes(
        lambda load: run_once(merged(common, NO_BANDS, question.at_load(load))), whole=question.users is not None
    )
    load, most = question.load, question.load * FARTHEST_BREAK
    knee = find_knee(probes, question.slo.met, load, load / 2, most, BREAK_TOLERANCE)
    reasons = walls(probes, question.slo, knee, load / 2, most) if knee.missed_at else []
    settings = merged(common, question.at_load(load), {"bands": True})
    return Offer(
        found.candidate,
        replicas,
        tuned,
        settings,
        run_once(settings),
        knee.load if knee.missed_at else None,
        f"{reasons[0].limit}: {reasons[0].because}" if reasons else "",
    )


def _percentiles(question: Question) -> dict[str, Value]:
    wanted = question.slo.with_percentiles((50.0, 90.0, 99.0))
    return {"metric_percentiles": ",".join(f"{one:g}" for one in wanted)}


def _fewest(run_once: RunOnce, question: Question, candidate: Candidate) -> Sized:
    most = question.most_devices // candidate.tensor_parallel_size
    if question.budget_usd_per_hour is not None and candidate.usd_per_hour:
        most = min(most, int(question.budget_usd_per_hour / candidate.usd_per_hour))
    few, enough = 0, 1
    while not _meets(run_once, question, candidate, enough):
        few, enough = enough, min(enough * 2, most)
        if enough == few:
            nearest = _at(run_once, question, candidate, few, {})
            return Sized(candidate, None, f"{most} replicas, the most allowed, do not carry the load", nearest)
    while enough - few > 1:
        middle = (few + enough) // 2
        if _meets(run_once, question, candidate, middle):
            enough = middle
        else:
            few = middle
    return Sized(candidate, enough)


def _meets(
    run_once: RunOnce, question: Question, candidate: Candidate, replicas: int, tuned: Settings | None = None
) -> bool:
    try:
        return question.slo.met(_at(run_once, question, candidate, replicas, tuned or {}))
    except SimServeError:  # settings that this candidate cannot have
        return False


def _at(run_once: RunOnce, question: Question, candidate: Candidate, replicas: int, tuned: Settings) -> Result:
    settings: dict[str, Any] = merged(candidate.settings(question, replicas), tuned, _percentiles(question), NO_BANDS)
    return run_once(merged(settings, question.at_load(question.load)))
