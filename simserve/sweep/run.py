"""A whole sweep: what is not done yet is done, and each outcome is kept as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from simserve.sweep.executors import Executor
from simserve.sweep.expand import Job
from simserve.sweep.jobs import Outcome, do_job
from simserve.sweep.settings import RunOnce
from simserve.sweep.store import Store

BATCH_RUNS = 8
"""Runs that are handed to a process together at most; a search is long enough to be handed over alone."""

OnProgress = Callable[[int, int, Outcome | None], None]
"""Called with (jobs done, jobs in all, the outcome just in, None at first)."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that is done: ``outcomes[i]`` is that of ``jobs[i]``; ``known`` of them were there before."""

    jobs: Sequence[Job]
    outcomes: Sequence[Outcome]
    known: int


def run_sweep(
    jobs: Sequence[Job], run_once: RunOnce, executor: Executor, store: Store, on_progress: OnProgress
) -> Sweep:
    """Do those of ``jobs`` that ``store`` does not have. What ends it early leaves the store with all that was done."""
    done = store.keys()
    missing = [job for job in jobs if job.key not in done]
    count = known = len(jobs) - len(missing)
    on_progress(count, len(jobs), None)
    batch = 1 if any(job.capacity for job in missing) else BATCH_RUNS
    for outcome in executor.map(partial(do_job, run_once), missing, batch):
        store.add(outcome)
        count += 1
        on_progress(count, len(jobs), outcome)
    return Sweep(jobs, store.outcomes(job.key for job in jobs), known)
