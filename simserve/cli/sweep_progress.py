"""How far a sweep is: a panel on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from simserve.sweep.settings import Settings

if TYPE_CHECKING:
    from simserve.sweep.jobs import Outcome
    from simserve.sweep.run import OnProgress

EVERY_S = 5.0


class Tally:
    """What is known of a sweep that goes on: rate, time left, and the best so far."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start_s = clock()
        self._first = 0
        self.done = self.total = 0
        self.failed = 0
        self._best: tuple[float, str] | None = None

    def note(self, done: int, total: int, outcome: Outcome | None) -> None:
        self.done, self.total = done, total
        if outcome is None:
            self._first = done
            return
        self.failed += outcome.error is not None
        figure = _figure(outcome)
        if figure is not None and (self._best is None or figure[0] > self._best[0]):
            self._best = figure

    def __str__(self) -> str:
        passed_s = self._clock() - self._start_s
        new = self.done - self._first
        parts = [f"{self.done:,} of {self.total:,} runs done"]
        if new and passed_s > 0:
            rate = new / passed_s
            parts.append(f"{rate:,.1f}/s")
            parts.append(f"{(self.total - self.done) / rate:,.0f} s left")
        if self.failed:
            parts.append(f"{self.failed:,} cannot be run")
        if self._best:
            parts.append(f"best so far {self._best[1]}")
        return ", ".join(parts)


def _figure(outcome: Outcome) -> tuple[float, str] | None:
    """How good an outcome is, the more the better, and in words."""
    if outcome.result is None:
        return None
    if outcome.search:
        load = float(outcome.search["load"])
        return load, f"{load:g} {outcome.search['of'].replace('_', ' ')} ({_place(outcome.settings)})"
    tokens = float(outcome.result["output_throughput"] or 0.0)
    return tokens, f"{tokens:,.0f} output tokens/s ({_place(outcome.settings)})"


def _place(settings: Settings) -> str:
    return f"{settings.get('tensor_parallel_size') or 1} x {settings.get('hardware')}"


@contextmanager
def shown(stream: TextIO, clock: Callable[[], float] = time.monotonic) -> Iterator[OnProgress]:
    """Show progress on ``stream`` while the context lasts."""
    tally = Tally(clock)
    if not stream.isatty():
        yield _lines(tally, stream, clock)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("sweep", total=None)

        def on_progress(done: int, total: int, outcome: Outcome | None) -> None:
            tally.note(done, total, outcome)
            bar.update(task, completed=done, total=total, description=str(tally))

        yield on_progress


def _lines(tally: Tally, stream: TextIO, clock: Callable[[], float]) -> OnProgress:
    next_s = clock() + EVERY_S

    def on_progress(done: int, total: int, outcome: Outcome | None) -> None:
        nonlocal next_s
        tally.note(done, total, outcome)
        if clock() >= next_s:
            next_s = clock() + EVERY_S
            print(tally, file=stream, flush=True)

    return on_progress
