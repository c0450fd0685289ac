"""Work on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from simserve.errors import EngineError
from simserve.sweep.executors.base import Done, Item

AHEAD = 4
"""Batches in the queue for each process, so that none waits for work."""

LAST_BATCHES = 8
"""Batches for each process at least, so that all end about together."""


class InThisProcess:
    """One after the other, here."""

    def map(self, do: Callable[[Item], Done], items: Sequence[Item], batch: int = 1) -> Iterator[Done]:
        return map(do, items)


class LocalProcesses:
    """``count`` processes of this machine, that many pieces at once; by default as many as it has cores for us."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or len(os.sched_getaffinity(0))

    def map(self, do: Callable[[Item], Done], items: Sequence[Item], batch: int = 1) -> Iterator[Done]:
        """See :class:`~simserve.sweep.executors.base.Executor`; raises :class:`EngineError` if a process is killed."""
        count = min(self.count, len(items))
        if count <= 1:
            yield from map(do, items)
            return
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_modules_of(do))
        pool = ProcessPoolExecutor(count, mp_context=context, initializer=_leave_interrupts_to_the_parent)
        try:
            yield from _as_they_end(pool, do, _batches(items, count, batch), count * AHEAD)
        except BrokenProcessPool:
            raise EngineError(
                "a process that simulated was killed, perhaps for want of memory; what was done is kept: go on with"
                " --resume, and fewer --jobs"
            ) from None
        finally:
            for process in (pool._processes or {}).values():  # those under way would only be waited for
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


def do_all(do: Callable[[Item], Done], items: Sequence[Item]) -> list[Done]:
    """One batch."""
    return [do(item) for item in items]


def _modules_of(do: Any) -> list[str]:
    """Where ``do`` and what it is a partial of are defined: processes that begin have them imported already."""
    if isinstance(do, partial):
        return [module for part in (do.func, *do.args) if callable(part) for module in _modules_of(part)]
    return [do.__module__]


def _batches(items: Sequence[Item], processes: int, most: int) -> list[Sequence[Item]]:
    size = max(1, min(most, len(items) // (processes * LAST_BATCHES)))
    return [items[start : start + size] for start in range(0, len(items), size)]


def _as_they_end(
    pool: ProcessPoolExecutor, do: Callable[[Item], Done], batches: Sequence[Sequence[Item]], most_waiting: int
) -> Iterator[Done]:
    waiting: set[Future[list[Done]]] = set()
    left = iter(batches)
    for batch in left:
        waiting.add(pool.submit(do_all, do, batch))
        if len(waiting) >= most_waiting:
            break
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            batch = next(left, ())
            if batch:
                waiting.add(pool.submit(do_all, do, batch))
            yield from future.result()


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
