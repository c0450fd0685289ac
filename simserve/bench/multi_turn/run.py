"""A multi-turn run: clients in one process or several, the warm-up before it, and what comes out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from simserve.bench.load.counters import BINS, Counters, bin_of
from simserve.bench.load.health import Health
from simserve.bench.load.run import OnProgress, run_processes
from simserve.bench.load.worker import meet, no_garbage_collection, on_duty, run_child
from simserve.bench.measure.outcome import Failure
from simserve.bench.multi_turn.clients import ClientOptions, Crowd, first_turns, run_client
from simserve.bench.multi_turn.conversations import Conversation
from simserve.bench.multi_turn.turns import Turn
from simserve.bench.tokens import TokenCounter
from simserve.bench.wire.address import Address
from simserve.bench.wire.pool import Pool
from simserve.errors import SimServeError
from simserve.resources import allow_many_connections

if TYPE_CHECKING:
    from multiprocessing.connection import Connection as Pipe


@dataclass(frozen=True)
class TurnJob:
    """The part of one process: its clients, by number, and its conversations."""

    address: Address
    insecure: bool
    options: ClientOptions
    counter: TokenCounter
    conversations: Sequence[Conversation]
    client_ids: Sequence[int]
    warmup: bool


@dataclass(frozen=True)
class TurnReport:
    """What one process did; ``said`` are the finished conversations with the server's answers."""

    turns: list[Turn]
    failures: list[Failure]
    broken: int
    mismatches: int
    said: list[tuple[str, list[dict[str, str]]]]
    unfinished: int
    with_minimum: bool
    warmup_s: float
    health: Health


@dataclass(frozen=True)
class MultiTurnRun:
    """All processes together. ``runtime_s`` ends with the last answer to come."""

    turns: list[Turn]
    failures: list[Failure]
    broken: int
    mismatches: int
    said: list[tuple[str, list[dict[str, str]]]]
    unfinished: int
    with_minimum: bool
    warmup_s: float
    runtime_s: float
    clients: int
    was_interrupted: bool

    @property
    def requests_per_s(self) -> float:
        """Answered turns per second."""
        return len(self.turns) / self.runtime_s if self.runtime_s > 0 else 0.0


def run_multi_turn(
    address: Address,
    options: ClientOptions,
    counter: TokenCounter,
    conversations: Sequence[Conversation],
    on_progress: OnProgress,
    *,
    clients: int = 1,
    processes: int = 1,
    warmup: bool = False,
    insecure: bool = False,
) -> MultiTurnRun:
    """Carry all ``conversations`` to their end by ``clients``, dealt out over ``processes``.

    Raises :class:`simserve.errors.ServerError` if the server cannot be reached.
    """
    processes = min(processes, clients)
    jobs = [
        TurnJob(
            address, insecure, options, counter, conversations[row::processes],
            range(row, clients, processes), warmup,
        )
        for row in range(processes)
    ]  # fmt: skip
    reports, _, was_interrupted = run_processes(_work, jobs, on_progress)
    turns = sorted((turn for report in reports for turn in report.turns), key=lambda turn: turn.start_time_ms)
    return MultiTurnRun(
        turns=turns,
        failures=[failure for report in reports for failure in report.failures],
        broken=sum(report.broken for report in reports),
        mismatches=sum(report.mismatches for report in reports),
        said=[talk for report in reports for talk in report.said],
        unfinished=sum(report.unfinished for report in reports),
        with_minimum=all(report.with_minimum for report in reports),
        warmup_s=max(report.warmup_s for report in reports),
        runtime_s=max((turn.end_time_ms for turn in turns), default=0.0) / 1e3,
        clients=clients,
        was_interrupted=was_interrupted,
    )


def _work(job: TurnJob, row: int, memory: Any, pipe: Pipe) -> None:
    run_child(lambda counters: _talk(job, row, counters, pipe), memory, pipe)


async def _talk(job: TurnJob, row: int, counters: Counters, pipe: Pipe) -> TurnReport:
    allow_many_connections()
    health = Health()
    pool = Pool(job.address, insecure=job.insecure)
    crowd = Crowd(job.address, job.options, job.counter, deque(job.conversations), pool)
    try:
        await pool.open(len(job.client_ids))
        warmup_s = await _warm_up(job, pool) if job.warmup else 0.0
        with no_garbage_collection():
            crowd.start_s = await meet(pipe)
            await asyncio.sleep(max(crowd.start_s - perf_counter(), 0.0))
            show = _Display(crowd, counters, row, health)
            async with on_duty(pipe, health, crowd.stop, crowd.abort, show):
                await asyncio.gather(*(run_client(crowd, client_id) for client_id in job.client_ids))
    finally:
        pool.close()
    said = [(talk.conversation.id, talk.said) for talk in crowd.finished]
    unfinished = len(job.conversations) - len(said) - crowd.broken
    return TurnReport(
        crowd.turns, crowd.failures, crowd.broken, crowd.mismatches, said, unfinished, crowd.with_minimum, warmup_s,
        health,
    )  # fmt: skip


async def _warm_up(job: TurnJob, pool: Pool) -> float:
    """Ask the first question of every conversation; nothing of it is counted. Returns how long that took."""
    begin_s = perf_counter()
    options = replace(job.options, rate=0.0, max_requests=None, early_stop=False)
    crowd = Crowd(job.address, options, job.counter, deque(first_turns(job.conversations)), pool, start_s=begin_s)
    await asyncio.gather(*(run_client(crowd, client_id) for client_id in job.client_ids))
    if crowd.failures and not crowd.turns:
        raise SimServeError(f"the warm-up failed: {crowd.failures[0]}")
    return perf_counter() - begin_s


class _Display:
    """Puts the state of a crowd into the shared counters."""

    def __init__(self, crowd: Crowd, counters: Counters, row: int, health: Health) -> None:
        self._crowd, self._counters, self._row, self._health = crowd, counters, row, health
        self._first, self._gap = [0] * BINS, [0] * BINS
        self._counted = 0

    def __call__(self) -> None:
        crowd = self._crowd
        for turn in crowd.turns[self._counted :]:
            if turn.ttft_ms == turn.ttft_ms:
                self._first[bin_of(turn.ttft_ms / 1e3)] += 1
            if turn.tpot_ms == turn.tpot_ms:
                self._gap[bin_of(turn.tpot_ms / 1e3)] += 1
        self._counted = len(crowd.turns)
        lag_s = max(self._health.loop_lags_s[-20:], default=0.0)
        values = (
            crowd.sent, len(crowd.under_way), len(crowd.turns), crowd.broken, crowd.pool.events(), 0.0, lag_s,
            process_time(),
        )  # fmt: skip
        self._counters.write(self._row, values, self._first, self._gap)
