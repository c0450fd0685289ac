"""Runs one workload through the fast scheduler and through the obvious one, and says whether they agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import simpy

import reference.orca
import reference.replica
import reference.request
import reference.sarathi
import reference.sglang
import reference.static
import reference.vllm_v0
import reference.vllm_v1
from simserve.scheduling import POLICIES, AdapterRequest, Request, Scheduler, SchedulerLimits, VllmV1Priority
from simserve.scheduling.adapters import AdapterVllmV1
from simserve.simulation.arrivals import Moment
from simserve.simulation.replica import Replica, Run

REFERENCES: dict[str, type[Any]] = {
    "vllm-v1": reference.vllm_v1.VllmV1,
    "vllm-v1-priority": reference.vllm_v1.VllmV1Priority,
    "vllm-v1-adapters": reference.vllm_v1.VllmV1Adapters,
    "vllm-v0": reference.vllm_v0.VllmV0,
    "sglang": reference.sglang.SGLang,
    "sarathi": reference.sarathi.Sarathi,
    "orca": reference.orca.Orca,
    "static": reference.static.Static,
}
FAST: dict[str, type[Scheduler]] = POLICIES | {
    "vllm-v1-priority": VllmV1Priority,
    "vllm-v1-adapters": AdapterVllmV1,
}


@dataclass(frozen=True)
class Job:
    """One request of a case; ``abort_s`` is when its client hangs up.

    A job with ``after`` is the next turn of that job's session: it comes ``arrival_s`` after its answer, if it has one.
    """

    arrival_s: float
    input_tokens: int
    output_tokens: int
    units: tuple[int, ...] = ()
    priority: int = 0
    abort_s: float | None = None
    after: int | None = None
    adapter: int = 0


@dataclass(frozen=True)
class Case:
    """A workload, and the engine it runs on."""

    jobs: list[Job]
    limits: SchedulerLimits
    policy: str = "vllm-v1"
    async_scheduling: bool = True
    unit_tokens: int = 0
    max_loras: int = 1


class DyadicTimer:
    """Step times that are multiples of 2**-20 s: sums are exact, so that even ties must come out the same."""

    def step_s(self, decodes: int, context: int, chunks: list[tuple[int, int]], sampled: int) -> float:
        tokens = decodes + sum(tokens for tokens, _ in chunks)
        attended = context + sum(tokens * past for tokens, past in chunks)
        return (1 << 14) / (1 << 20) + tokens * 64 / (1 << 20) + attended / (1 << 20) + sampled * 128 / (1 << 20)

    def decode_steps_s(self, decodes: int, context: int, steps: int) -> np.ndarray:
        return np.array([self.step_s(decodes, context + index * decodes, [], decodes) for index in range(steps)])


@dataclass
class Outcome:
    """What a run is compared by."""

    requests: list[tuple[Any, ...]]
    steps: list[reference.replica.StepEntry]
    gaps_s: list[float]
    least_free_blocks: int
    free_blocks_at_end: int


class FastLedger:
    """Expands the runs of the fast replica into single steps."""

    def __init__(self) -> None:
        self.steps: list[reference.replica.StepEntry] = []
        self.gaps_s: list[float] = []
        self.longest_run = 0
        self.on_finished: Callable[[list[Request]], None] = _nobody_asks

    def run_done(self, run: Run, finished: list[Request]) -> None:
        plan = run.plan
        self.longest_run = max(self.longest_run, len(run.ends_s))
        chunks = [(chunk.request.request_id, chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
        for index, end_s in enumerate(run.ends_s):
            context = plan.decode_context_tokens + index * plan.num_decodes
            self.steps.append(reference.replica.StepEntry(plan.num_decodes, context, chunks, float(end_s)))
            late = plan.returning if index == 0 else []
            stalls = plan.resuming if index == 0 else []
            followed = plan.num_decodes - plan.padding - len(late) - sum(stall.count for stall in stalls)
            self.gaps_s += [float(run.durations_s[index])] * followed
            for stall in stalls:
                self.gaps_s += [float(end_s) - stall.last_token_s] * stall.count
            self.gaps_s += [float(end_s) - request.last_token_s for request in late]
        for chunk in plan.chunks:
            if chunk.samples and chunk.request.first_token_s != run.end_s:
                self.gaps_s.append(run.end_s - chunk.request.last_token_s)
        self.on_finished(finished)


def run_fast(case: Case, scheduler: Scheduler | None = None) -> tuple[Outcome, FastLedger]:
    """``case`` on the scheduler that ships."""
    env = simpy.Environment()
    scheduler = scheduler or FAST[case.policy](case.limits)
    if isinstance(scheduler, AdapterVllmV1):
        scheduler.allow_adapters(case.max_loras)
    ledger = FastLedger()
    timer: Any = DyadicTimer()
    replica = Replica(env, scheduler, timer, ledger, async_scheduling=case.async_scheduling)
    kind = AdapterRequest if isinstance(scheduler, AdapterVllmV1) else Request
    requests = serve(env, case, replica, ledger, kind)
    blocks = scheduler.blocks
    outcome = Outcome(requests, ledger.steps, ledger.gaps_s, scheduler.least_free_blocks, blocks.free_blocks)
    return outcome, ledger


def run_obvious(case: Case) -> Outcome:
    """``case`` on the reference."""
    env = simpy.Environment()
    scheduler = REFERENCES[case.policy](case.limits)
    if isinstance(scheduler, reference.vllm_v1.VllmV1Adapters):
        scheduler.most_adapters = case.max_loras
    replica = reference.replica.Replica(env, scheduler, DyadicTimer(), case.async_scheduling)
    requests = serve(env, case, replica, replica, reference.request.Request)
    blocks = scheduler.blocks
    ledger = replica.ledger
    return Outcome(requests, ledger.steps, ledger.gaps_s, scheduler.least_free_blocks, blocks.free_blocks)


def assert_same(case: Case) -> FastLedger:
    """Steps, batches, preemptions, cache hits and times agree; returns the fast ledger."""
    slow, (fast, ledger) = run_obvious(case), run_fast(case)
    assert_equal(case, fast, slow)
    return ledger


def assert_equal(case: Case, fast: Outcome, slow: Outcome) -> None:
    """Two outcomes of ``case`` are one."""
    assert fast.steps == slow.steps
    assert fast.requests == slow.requests
    assert sorted(fast.gaps_s) == sorted(slow.gaps_s)
    assert fast.least_free_blocks == slow.least_free_blocks
    assert fast.free_blocks_at_end == slow.free_blocks_at_end == case.limits.num_blocks - 1


def _nobody_asks(finished: list[Any]) -> None:
    pass


def serve(env: simpy.Environment, case: Case, replica: Any, notifier: Any, kind: type[Any]) -> list[tuple[Any, ...]]:
    requests = [
        kind(
            index,
            job.input_tokens,
            job.output_tokens,
            arrival_s=job.arrival_s,
            units=job.units,
            unit_tokens=case.unit_tokens,
            priority=job.priority,
            **({"adapter": job.adapter} if job.adapter else {}),
        )
        for index, job in enumerate(case.jobs)
    ]
    env.process(_arrivals(env, replica, [r for r, job in zip(requests, case.jobs, strict=True) if job.after is None]))
    notifier.on_finished = partial(_next_turns, env, replica, case.jobs, requests)
    env.process(_hang_ups(env, replica, case.jobs))
    env.run()
    return [_summary(request, job) for request, job in zip(requests, case.jobs, strict=True)]


def _arrivals(env: simpy.Environment, replica: Any, requests: list[Any]) -> simpy.events.ProcessGenerator:
    for request in sorted(requests, key=lambda request: request.arrival_s):
        if request.arrival_s > env.now:
            yield Moment(env, request.arrival_s)
        replica.submit(request)


def _next_turns(
    env: simpy.Environment, replica: Any, jobs: list[Job], requests: list[Any], finished: list[Any]
) -> None:
    ended = {request.request_id for request in finished}
    for request, job in zip(requests, jobs, strict=True):
        if job.after in ended:
            request.arrival_s = env.now + job.arrival_s
            env.process(_arrivals(env, replica, [request]))


def _hang_ups(env: simpy.Environment, replica: Any, jobs: list[Job]) -> simpy.events.ProcessGenerator:
    times = sorted((job.abort_s, index) for index, job in enumerate(jobs) if job.abort_s is not None)
    for abort_s, index in times:
        if abort_s > env.now:
            yield Moment(env, abort_s)
        replica.abort(index)


def _summary(request: Any, job: Job) -> tuple[Any, ...]:
    times = (request.scheduled_s, request.first_token_s, request.finish_s)
    produced = request.produced_tokens if job.abort_s is None else None
    return (
        request.status,
        request.cached_tokens,
        request.preemptions,
        produced,
        *(None if math.isnan(time_s) else time_s for time_s in times),
    )
