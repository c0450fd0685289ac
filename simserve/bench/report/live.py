"""What is shown while a run is on: a panel on a terminal, else a plain line now and then.

All of it comes from counters; nothing is parsed for it. First events stand in for first tokens, reads for others.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from simserve.bench.load.counters import Progress, quantile
from simserve.bench.load.run import OnProgress

if TYPE_CHECKING:
    from rich.panel import Panel

LINE_EVERY_S = 10.0
WINDOW_S = 5.0
SPARKS = "▁▂▃▄▅▆▇█"
HISTORY = 40
STOPPING = "Ctrl-C: nothing more is sent, answers are waited for; once more does not wait"
GREEN_LAG_S, AMBER_LAG_S = 0.005, 0.025


@contextmanager
def live(stream: TextIO, total: int | None, target: str, *, is_off: bool = False) -> Iterator[OnProgress]:
    """Show the progress of a run of ``total`` requests (None: until time is up) on ``stream``."""
    if is_off:
        yield lambda progress, elapsed_s: None
    elif not stream.isatty():
        yield progress_lines(stream, total)
    else:
        from rich.console import Console
        from rich.live import Live

        meter = Meter(total, target)
        with Live(console=Console(file=stream), refresh_per_second=4, transient=True) as panel:

            def show(progress: Progress, elapsed_s: float) -> None:
                panel.update(meter.panel(progress, elapsed_s))

            yield show


def progress_lines(stream: TextIO, total: int | None, clock: Callable[[], float] = time.monotonic) -> OnProgress:
    """Write a line to ``stream`` every ten seconds by ``clock``."""
    next_s = clock() + LINE_EVERY_S
    was_stopping = False

    def on_progress(progress: Progress, elapsed_s: float) -> None:
        nonlocal next_s, was_stopping
        if progress.is_stopping and not was_stopping:
            was_stopping = True
            print(f"{STOPPING}; {progress.in_flight:,} under way", file=stream, flush=True)
        if clock() >= next_s:
            next_s = clock() + LINE_EVERY_S
            of = "" if total is None else f" of {total:,}"
            failed = f", {progress.failed:,} failed" if progress.failed else ""
            print(
                f"{elapsed_s:,.0f} s: {progress.done:,}{of} requests done{failed}, {progress.in_flight:,} under way,"
                f" TTFT p50 {_ms(quantile(progress.ttft, 0.5))}",
                file=stream,
                flush=True,
            )

    return on_progress


class Meter:
    """Rates over the last seconds, and the panel that shows them."""

    def __init__(self, total: int | None, target: str) -> None:
        self._total = total
        self._target = target
        self._past: deque[tuple[float, Progress]] = deque()
        self._history: deque[float] = deque(maxlen=HISTORY)

    def panel(self, progress: Progress, elapsed_s: float) -> Panel:
        """Where the run is."""
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        requests, tokens, cpu = self._rates(progress, elapsed_s)
        grid = Table.grid(padding=(0, 2))
        for label, text in (
            ("time", self._time(progress, elapsed_s)),
            (
                "requests",
                f"{progress.sent:,} sent, {progress.in_flight:,} under way, {progress.done:,} done,"
                f" {progress.failed:,} failed",
            ),
            ("rate", f"{requests:,.1f} requests/s, {tokens:,.0f} chunks/s  {sparkline(list(self._history))}"),
            ("TTFT", f"p50 {_ms(quantile(progress.ttft, 0.5))}, p99 {_ms(quantile(progress.ttft, 0.99))}"),
            ("ITL", f"p50 {_ms(quantile(progress.itl, 0.5))}, p99 {_ms(quantile(progress.itl, 0.99))}"),
        ):
            grid.add_row(Text(label, style="dim"), Text(text))
        grid.add_row(Text("client", style="dim"), Text(self._client(progress, cpu), style=_colour(progress)))
        subtitle = STOPPING if progress.is_stopping else None
        return Panel(grid, title=self._target, title_align="left", subtitle=subtitle, subtitle_align="left")

    def _rates(self, progress: Progress, elapsed_s: float) -> tuple[float, float, float]:
        """Requests, chunks and CPU seconds per second over the last few."""
        self._past.append((elapsed_s, progress))
        while len(self._past) > 2 and elapsed_s - self._past[0][0] > WINDOW_S:
            self._past.popleft()
        before_s, before = self._past[0]
        span_s = elapsed_s - before_s
        if span_s <= 0:
            return 0.0, 0.0, 0.0
        tokens = (progress.events - before.events) / span_s
        self._history.append(tokens)
        return (progress.done - before.done) / span_s, tokens, (progress.cpu_s - before.cpu_s) / span_s

    def _time(self, progress: Progress, elapsed_s: float) -> str:
        if self._total is None or not progress.done or progress.done >= self._total:
            return f"{max(elapsed_s, 0):,.0f} s"
        left_s = elapsed_s / progress.done * (self._total - progress.done)
        return f"{max(elapsed_s, 0):,.0f} s, about {left_s:,.0f} s to go"

    def _client(self, progress: Progress, cpu: float) -> str:
        return f"sent {_ms(progress.lag_s)} late at worst, loop {_ms(progress.loop_lag_s)} late, {cpu:.0%} CPU"


def sparkline(values: list[float]) -> str:
    """The course of ``values`` in one line of blocks."""
    top = max(values, default=0.0)
    return "".join(SPARKS[min(int(value / top * len(SPARKS)), len(SPARKS) - 1)] for value in values) if top else ""


def _colour(progress: Progress) -> str:
    worst_s = max(progress.lag_s, progress.loop_lag_s)
    return "green" if worst_s <= GREEN_LAG_S else "yellow" if worst_s <= AMBER_LAG_S else "red"


def _ms(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1e3:,.1f} ms"
