"""One run from beginning to end: plan, check, send, count, judge."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from simserve.bench.load.run import LoadResult, OnProgress, run_jobs
from simserve.bench.measure.failures import FailureGroup, group_failures
from simserve.bench.measure.figures import Figures, SloName, figures_of
from simserve.bench.measure.outcome import Outcome, outcome_of
from simserve.bench.measure.speculative import Speculation, read_counters, speculation_between
from simserve.bench.measure.steady import SteadyState, steady_state
from simserve.bench.measure.verdict import Verdict, judge
from simserve.bench.plan import Plan, make_jobs
from simserve.bench.wire.send import ask_once
from simserve.errors import ServerError

RETRY_S = 5.0
METRICS_TIMEOUT_S = 5.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class BenchRun:
    """A run that is over, with everything that any report needs.

    ``counted`` says how many answers had their tokens counted by "usage", "tokenizer" or "estimate".
    """

    plan: Plan
    started: datetime
    start_s: float
    outcomes: list[Outcome]
    figures: Figures
    steady: SteadyState | None
    verdict: Verdict
    failures: list[FailureGroup]
    load: LoadResult
    counted: Mapping[str, int]
    slos_s: Mapping[SloName, float]
    speculation: Speculation | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def is_estimated(self) -> bool:
        """Whether any token count is a guess from characters."""
        return self.counted.get("estimate", 0) > 0


def run_bench(plan: Plan, slos_s: Mapping[SloName, float], on_progress: OnProgress, say: Say) -> BenchRun:
    """Carry out ``plan``; ``say`` is told what happens before and after.

    Raises :class:`simserve.errors.ServerError` if the server cannot be reached or fails the ready check.
    """
    if plan.options.ready_check_timeout_s > 0:
        wait_until_ready(plan, say)
    if plan.options.profile:
        _profile(plan, "start", say)
    before = read_counters(plan.server, METRICS_TIMEOUT_S)
    started = datetime.now()
    load = run_jobs(make_jobs(plan), on_progress)
    if plan.options.profile:
        _profile(plan, "stop", say)
    after = read_counters(plan.server, METRICS_TIMEOUT_S) if before else {}
    outcomes, counted = count_tokens(plan, load.outcomes)
    return assess(plan, load, outcomes, counted, started, slos_s, speculation_between(before, after))


def assess(
    plan: Plan,
    load: LoadResult,
    outcomes: list[Outcome],
    counted: Mapping[str, int],
    started: datetime,
    slos_s: Mapping[SloName, float],
    speculation: Speculation | None = None,
) -> BenchRun:
    """Figures and verdict of what came back."""
    shape = plan.shape
    ok = [one for one in outcomes if one.ok]
    figures = figures_of(
        outcomes,
        load.start_s,
        is_closed_loop=shape.is_closed_loop,
        slos_s=slos_s,
        sequences=sum(plan.sample_of(one.index).sequences for one in ok) if plan.backend.is_pooling else None,
        audio_s=sum(media.duration_s for one in ok for media in plan.sample_of(one.index).media),
    )
    places = shape.max_concurrency
    steady = steady_state(outcomes, load.start_s, places, is_closed_loop=shape.is_closed_loop)
    is_constant = shape.ramp is None and not shape.keeps_arrivals
    verdict = judge(outcomes, figures, load.health, steady, load.start_s, has_constant_rate=is_constant)
    failures = group_failures(outcomes, plan.backend.name, plan.backend.path)
    return BenchRun(
        plan, started, load.start_s, outcomes, figures, steady, verdict, failures, load, counted, slos_s, speculation,
        notes=(*plan.notes, *_notes(plan, load, figures, counted)),
    )  # fmt: skip


def count_tokens(plan: Plan, outcomes: Sequence[Outcome]) -> tuple[list[Outcome], dict[str, int]]:
    """Outcomes with all their tokens counted: by the server's usage, else the tokenizer, else by characters."""
    done: list[Outcome] = []
    for one in outcomes:
        if not one.ok:
            done.append(one)
            continue
        output, counted_by = one.output_tokens, one.counted_by
        if output is None:
            output = max(plan.counter.count(one.text), 1)
            counted_by = "tokenizer" if plan.counter.is_exact else "estimate"
        inputs = plan.sample_of(one.index).input_tokens if one.input_tokens is None else one.input_tokens
        done.append(one.with_counts(inputs, output, counted_by))
    return done, Counter(one.counted_by for one in done if one.ok)


def wait_until_ready(plan: Plan, say: Say) -> None:
    """Ask the first question until it is answered; raises :class:`ServerError` when the time is up."""
    deadline = time.monotonic() + plan.options.ready_check_timeout_s
    while True:
        try:
            reason = str(asyncio.run(_ask_once(plan)).failure or "")
        except ServerError as error:
            reason = str(error)
        if not reason:
            return
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise ServerError(
                f"the server was not ready within --ready-check-timeout-sec {plan.options.ready_check_timeout_s:g}"
                f" ({reason})"
            )
        say(f"not ready yet ({reason}); trying for {left_s:.0f} s more")
        time.sleep(min(RETRY_S, left_s))


async def _ask_once(plan: Plan) -> Outcome:
    limit_s = min(plan.options.request_timeout_s, plan.options.ready_check_timeout_s)
    told = await ask_once(
        plan.server.address, plan.requests[0], f"{plan.id_prefix}ready-0", limit_s, insecure=plan.server.insecure
    )
    return outcome_of(told, plan.backend, keep_text=False)


def _profile(plan: Plan, what: str, say: Say) -> None:
    try:
        told = plan.server.post(f"/{what}_profile", {})
    except ServerError as error:
        told = None
        say(str(error))
    if told is None:
        say(f"the server does not take /{what}_profile")


def _notes(plan: Plan, load: LoadResult, figures: Figures, counted: Mapping[str, int]) -> list[str]:
    """What the run itself showed that a reader should know."""
    notes: list[str] = []
    if guessed := counted.get("estimate"):
        notes.append(
            f"estimated: output tokens of {guessed:,} answers, from their characters; the server sent no usage"
        )
    if figures.coalesced > 0.05:
        notes.append(f"{figures.coalesced:.0%} of chunks arrived together with the one before: ITL sees no gap there")
    if stale := sum(one.stale_connections for one in load.health):
        notes.append(f"{stale:,} requests met a connection that the server had just closed, and were sent again")
    sent = len(load.outcomes)
    if plan.shape.is_closed_loop and plan.shape.duration_s is not None and sent > len(plan.samples):
        notes.append(f"{len(plan.samples):,} prompts made {sent:,} requests: repeated ones may hit the prefix cache")
    if load.was_interrupted:
        notes.append("stopped by Ctrl-C: this is a part of the run")
    tokens, chunks = figures.total_output_tokens, figures.chunks
    if chunks and tokens > 1.05 * chunks and math.isfinite(tokens / chunks):
        notes.append(f"a chunk has {tokens / chunks:.2f} tokens on average: ITL is between chunks, not tokens")
    return notes
