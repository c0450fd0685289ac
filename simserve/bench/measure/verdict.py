"""Whether a run's figures can be believed, and for what: one word and the reason.

The rules, in this order (the first that holds decides):

- UNSTABLE: nothing succeeded, or more than 1 % failed other than by being declined.
- CLIENT-LIMITED: the client sent late (p99 of its lag above 5 ms and above 5 % of the median latency to the first
  output), its loop stood still (p99 above 25 ms and above 5 %), or a process used more than 90 % of a core.
- SATURATED: more than 1 % were declined (429, 503), or the backlog of a rate kept growing by more than 5 % of it.
- UNSTABLE: fewer than 30 answers, or the median latency drifts by more than 20 % from one half of the steady window
  to the other.
- VALID: none of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from simserve.bench.load.health import Health
from simserve.bench.measure.failures import refused_requests
from simserve.bench.measure.figures import Figures
from simserve.bench.measure.outcome import Outcome
from simserve.bench.measure.steady import SteadyState

Word = Literal["VALID", "CLIENT-LIMITED", "SATURATED", "UNSTABLE"]

MOST_FAILED = MOST_DECLINED = 0.01
LAG_LIMIT_S, LOOP_LIMIT_S, SHARE_OF_LATENCY = 0.005, 0.025, 0.05
BUSY_CORE = 0.9
GROWTH = 0.05
LEAST_REQUESTS = 30
DRIFT = 0.2
LEAST_ARRIVALS_S = 2.0
"""Arrivals over a shorter time say nothing of a backlog's growth."""


@dataclass(frozen=True)
class Verdict:
    """The word, and the reason in one sentence."""

    word: Word
    reason: str

    def __str__(self) -> str:
        return f"{self.word}: {self.reason}"


def judge(
    outcomes: Sequence[Outcome],
    figures: Figures,
    health: Sequence[Health],
    steady: SteadyState | None,
    start_s: float,
    *,
    has_constant_rate: bool,
) -> Verdict:
    """Judge a run; the growth of a backlog and drift are looked for only where the load was ``has_constant_rate``."""
    return (
        _failed(outcomes, figures)
        or _client_limited(figures, health)
        or _declined(outcomes)
        or (_growing(outcomes) if has_constant_rate else None)
        or _few_or_drifting(outcomes, figures, steady if has_constant_rate else None, start_s)
        or Verdict("VALID", f"{figures.completed:,} answers, the client was on time and the load was met")
    )


def _failed(outcomes: Sequence[Outcome], figures: Figures) -> Verdict | None:
    if not figures.completed:
        return Verdict("UNSTABLE", "no request succeeded")
    broken = figures.failed - refused_requests(outcomes)
    if broken > MOST_FAILED * len(outcomes):
        return Verdict("UNSTABLE", f"{broken:,} of {len(outcomes):,} requests failed ({broken / len(outcomes):.1%})")
    return None


def _client_limited(figures: Figures, health: Sequence[Health]) -> Verdict | None:
    first = figures.values_s["ttft"] if len(figures.values_s["ttft"]) else figures.values_s["e2el"]
    tolerable_s = SHARE_OF_LATENCY * float(np.median(first))
    lag_s = float(np.percentile(figures.values_s["lag"], 99))
    if lag_s > max(LAG_LIMIT_S, tolerable_s):
        return Verdict("CLIENT-LIMITED", f"requests left {lag_s * 1e3:.1f} ms late (p99); {MORE_PROCESSES}")
    loop_lags = np.concatenate([np.asarray(one.loop_lags_s) for one in health]) if health else np.empty(0)
    loop_s = float(np.percentile(loop_lags, 99)) if loop_lags.size else 0.0
    if loop_s > max(LOOP_LIMIT_S, tolerable_s):
        return Verdict("CLIENT-LIMITED", f"the client stood still for {loop_s * 1e3:.0f} ms (p99); {MORE_PROCESSES}")
    busiest = max((one.cpu_share for one in health), default=0.0)
    if busiest > BUSY_CORE:
        return Verdict("CLIENT-LIMITED", f"a client process used {busiest:.0%} of a core; {MORE_PROCESSES}")
    return None


MORE_PROCESSES = "give it more --processes or a quieter machine"


def _declined(outcomes: Sequence[Outcome]) -> Verdict | None:
    declined = refused_requests(outcomes)
    if declined > MOST_DECLINED * len(outcomes):
        return Verdict("SATURATED", f"the server declined {declined:,} of {len(outcomes):,} requests")
    return None


def _growing(outcomes: Sequence[Outcome]) -> Verdict | None:
    """Whether the backlog (due and not ended) of a rate rose over the second half of the arrivals."""
    due = np.sort([one.due_s for one in outcomes])
    span_s = float(due[-1] - due[0])
    if span_s < LEAST_ARRIVALS_S:
        return None
    ended = np.sort([one.end_s for one in outcomes])
    at = due[0] + span_s * np.linspace(0.5, 1.0, 51)
    backlog = np.searchsorted(due, at, side="right") - np.searchsorted(ended, at, side="right")
    growth = float(np.polyfit(at - at[0], backlog, 1)[0])
    rate = len(due) / span_s
    # A queue that is merely random wanders by the square root of its length.
    rose = growth * span_s / 2 > 3 * np.sqrt(max(float(backlog.mean()), 1.0))
    if growth > GROWTH * rate and rose:
        return Verdict(
            "SATURATED",
            f"of {rate:.4g} requests/s the server left {growth:.3g} undone every second; lower --request-rate",
        )
    return None


def _few_or_drifting(
    outcomes: Sequence[Outcome], figures: Figures, steady: SteadyState | None, start_s: float
) -> Verdict | None:
    if figures.completed < LEAST_REQUESTS:
        return Verdict("UNSTABLE", f"only {figures.completed} answers; percentiles need more --num-prompts")
    if steady is None:
        return None
    first_s, last_s = start_s + steady.start_s, start_s + steady.end_s
    middle_s = (first_s + last_s) / 2
    earlier = [one for one in outcomes if one.ok and first_s <= one.sent_s < middle_s]
    later = [one for one in outcomes if one.ok and middle_s <= one.sent_s < last_s]
    for name in ("TTFT", "E2EL"):
        early, late = ([one.ttft_s if name == "TTFT" else one.e2el_s for one in half] for half in (earlier, later))
        if min(len(early), len(late)) < LEAST_REQUESTS or np.isnan(early).any() or np.isnan(late).any():
            continue
        before, after = float(np.median(early)), float(np.median(late))
        if abs(after - before) > DRIFT * before and abs(after - before) > _noise(early, late):
            return Verdict(
                "UNSTABLE", f"median {name} went from {before * 1e3:.1f} to {after * 1e3:.1f} ms during the run;"
                " run longer",
            )  # fmt: skip
    return None


def _noise(early: Sequence[float], late: Sequence[float]) -> float:
    """Three standard errors of a difference of medians, each about 1.25 of the mean's."""
    return 3 * 1.25 * float(np.sqrt(np.var(early) / len(early) + np.var(late) / len(late)))
