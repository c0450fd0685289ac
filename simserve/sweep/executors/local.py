"""Jobs on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from simserve.errors import EngineError
from simserve.sweep.expand import Job
from simserve.sweep.jobs import Outcome, do_job
from simserve.sweep.settings import RunOnce

AHEAD = 4
"""Batches in the queue for each process, so that none waits for work."""

BATCH_JOBS = 8
"""Jobs that are handed over together at most: one at a time costs as much as a short run."""


class InThisProcess:
    """One after the other, here."""

    def outcomes(self, run_once: RunOnce, jobs: Sequence[Job]) -> Iterator[Outcome]:
        for job in jobs:
            yield do_job(run_once, job)


class LocalProcesses:
    """``count`` processes of this machine, that many jobs at once; by default as many as it has cores for us."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or len(os.sched_getaffinity(0))

    def outcomes(self, run_once: RunOnce, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """See :class:`~simserve.sweep.executors.base.Executor`; raises :class:`EngineError` if a process is killed."""
        count = min(self.count, len(jobs))
        if count <= 1:
            yield from InThisProcess().outcomes(run_once, jobs)
            return
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([run_once.__module__])
        pool = ProcessPoolExecutor(count, mp_context=context, initializer=_leave_interrupts_to_the_parent)
        try:
            yield from _as_they_end(pool, run_once, _batches(jobs, count), count * AHEAD)
        except BrokenProcessPool:
            raise EngineError(
                "a process that simulated was killed, perhaps for want of memory; what was done is kept: go on with"
                " --resume, and fewer --jobs"
            ) from None
        finally:
            for process in (pool._processes or {}).values():  # those under way would only be waited for
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


def do_jobs(run_once: RunOnce, jobs: Sequence[Job]) -> list[Outcome]:
    """One batch."""
    return [do_job(run_once, job) for job in jobs]


def _batches(jobs: Sequence[Job], processes: int) -> list[Sequence[Job]]:
    """Equal ones, small enough that all processes end about together; a search is a batch of its own."""
    size = 1 if any(job.capacity for job in jobs) else max(1, min(BATCH_JOBS, len(jobs) // (processes * 8)))
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]


def _as_they_end(
    pool: ProcessPoolExecutor, run_once: RunOnce, batches: Sequence[Sequence[Job]], most_waiting: int
) -> Iterator[Outcome]:
    waiting: set[Future[list[Outcome]]] = set()
    left = iter(batches)
    for batch in left:
        waiting.add(pool.submit(do_jobs, run_once, batch))
        if len(waiting) >= most_waiting:
            break
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            batch = next(left, ())
            if batch:
                waiting.add(pool.submit(do_jobs, run_once, batch))
            yield from future.result()


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
