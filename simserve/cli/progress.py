"""How far long work is: a bar on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

LINE_EVERY_S = 5.0
Report = Callable[[str, float], None]
"""Called with what is being done and the share of the whole that is done, 0 to 1."""


@contextmanager
def shown_progress(stream: TextIO) -> Iterator[Report]:
    """Shows on ``stream`` what the report is told."""
    if not stream.isatty():
        yield progress_lines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, done: bar.update(task, description=what, completed=done)


def progress_lines(stream: TextIO, clock: Callable[[], float] = time.monotonic) -> Report:
    """Writes a line to ``stream`` whenever something else is being done, and every five seconds by ``clock``."""
    last_what, next_s = "", 0.0

    def report(what: str, done: float) -> None:
        nonlocal last_what, next_s
        if what != last_what or clock() >= next_s:
            last_what, next_s = what, clock() + LINE_EVERY_S
            print(f"{done:4.0%} {what}", file=stream, flush=True)

    return report
