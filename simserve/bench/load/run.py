"""The parent's side of a run: start the processes, say when to begin, watch, stop when told, and gather."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from time import perf_counter
from typing import TYPE_CHECKING, Any

from simserve.bench.load.counters import Counters, Progress
from simserve.bench.load.health import Health
from simserve.bench.load.worker import Job, work
from simserve.bench.measure.outcome import Outcome
from simserve.errors import ServerError, SimServeError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection as Pipe

START_MARGIN_S = 0.1
"""Between the word to start and the start: every process must have heard it."""

LOOK_EVERY_S = 0.25
GOODBYE_S = 5.0

OnProgress = Callable[[Progress, float], None]
"""Called now and then with where the run is and the seconds since its start."""


@dataclass(frozen=True)
class LoadResult:
    """All outcomes in order of their index; ``start_s`` is the ``perf_counter`` time that due times count from."""

    outcomes: list[Outcome]
    start_s: float
    health: list[Health]
    was_interrupted: bool


def run_jobs(jobs: Sequence[Job], on_progress: OnProgress) -> LoadResult:
    """Run ``jobs``, each in a process of its own; see :func:`run_processes`."""
    reports, start_s, was_interrupted = run_processes(work, jobs, on_progress)
    outcomes = sorted((one for report in reports for one in report.outcomes), key=lambda one: one.index)
    return LoadResult(outcomes, start_s, [report.health for report in reports], was_interrupted)


def run_processes(
    work: Callable[[Any, int, Any, Pipe], None], jobs: Sequence[Any], on_progress: OnProgress
) -> tuple[list[Any], float, bool]:
    """Call ``work(job, row, memory, pipe)`` in a process for each job; see :mod:`simserve.bench.load.worker`.

    The first Ctrl-C stops the sending, and what is under way may finish; the second ends that too. Either way there is
    a result: what each process reports, the start, and whether there was a Ctrl-C. Raises :class:`ServerError` if the
    server cannot be reached before the start, and ``KeyboardInterrupt`` if the user gave up by then.
    """
    context = get_context("spawn")
    counters = Counters.make(context, len(jobs))
    pipes: list[Pipe] = []
    children: list[SpawnProcess] = []
    is_done = False
    with _interrupts() as presses:
        try:
            for row, job in enumerate(jobs):
                ours, theirs = context.Pipe()
                child = context.Process(target=work, args=(job, row, counters.memory, theirs), daemon=True)
                child.start()
                theirs.close()
                pipes.append(ours)
                children.append(child)
            _gather(pipes, "ready", presses)
            start_s = perf_counter() + START_MARGIN_S
            for pipe in pipes:
                pipe.send(("start", start_s))
            reports = _watch(pipes, counters, start_s, presses, on_progress)
            is_done = True
        finally:
            _end(children, gently=is_done)
        return reports, start_s, presses.count > 0


@dataclass
class _Presses:
    """How often Ctrl-C was pressed."""

    count: int = 0


@contextmanager
def _interrupts() -> Iterator[_Presses]:
    """Count Ctrl-C instead of raising; in a thread that gets no signals, there is nothing to count."""
    presses = _Presses()
    if threading.current_thread() is not threading.main_thread():
        yield presses
        return

    def press(signum: int, frame: object) -> None:
        presses.count += 1

    before = signal.signal(signal.SIGINT, press)
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, before)


def _gather(pipes: Sequence[Pipe], wanted: str, presses: _Presses) -> None:
    """Wait until every process has said ``wanted``."""
    missing = set(pipes)
    while missing:
        if presses.count:
            raise KeyboardInterrupt
        for pipe in wait(list(missing), timeout=LOOK_EVERY_S):
            kind, value = _receive(pipe)  # type: ignore[arg-type]
            if kind == "error":
                raise ServerError(value)
            assert kind == wanted
            missing.discard(pipe)


def _watch(
    pipes: Sequence[Pipe], counters: Counters, start_s: float, presses: _Presses, on_progress: OnProgress
) -> list[Any]:
    """Wait for every report; hand on what the user wants meanwhile."""
    missing = set(pipes)
    reports: list[Any] = []
    heard = 0
    while missing:
        for pipe in wait(list(missing), timeout=LOOK_EVERY_S):
            kind, value = _receive(pipe)  # type: ignore[arg-type]
            if kind == "error":
                raise SimServeError(value)
            reports.append(value)
            missing.discard(pipe)
        if presses.count > heard:
            heard = presses.count
            for pipe in missing:
                pipe.send(("stop",) if heard == 1 else ("abort",))
        on_progress(replace(counters.read(), is_stopping=presses.count > 0), perf_counter() - start_s)
    return reports


def _receive(pipe: Pipe) -> tuple[str, Any]:
    try:
        kind, value = pipe.recv()
    except (EOFError, OSError):
        raise SimServeError("a client process died; its last words are above, and memory may have run out") from None
    return kind, value


def _end(children: Sequence[SpawnProcess], *, gently: bool) -> None:
    for child in children:
        if not gently:
            child.terminate()
        child.join(timeout=GOODBYE_S)
        if child.is_alive():
            child.kill()
            child.join()
