"""Has work done when it is due, in slices: one wake-up per due step, and other clients' turn in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from simserve.engines.clock import NEVER
from simserve.engines.timer import WallTimer, wall_timer

SLICE_S = 0.002
"""Longest stretch of work before the other tasks of the event loop get their turn."""

MOST_WAKING_S = 0.0005
"""What the machine is thought to need at most to wake this process up."""

WAKING_LEARNT_S = 2e-6
"""What it needs is learnt in steps of this size, four times as fast downwards: then it takes longer four times of five,
and what is left of the fifth is spent in rounds of the loop."""

Turn = Callable[[float], float]
"""Does what is due, until the wall's clock shows its argument or nothing is left; returns when it is to be called next.

A time that has passed means as soon as the loop has looked around, NEVER not before somebody calls :meth:`Pacer.wake`.
"""


class Pacer:
    """Calls ``turn`` whenever it is due, as a callback of the running event loop, not as a task: a step costs one hop.

    An exception that leaves ``turn`` ends the pacing; ``on_failure`` is told, once.
    """

    def __init__(self, turn: Turn, on_failure: Callable[[Exception], None]) -> None:
        self._turn = turn
        self._on_failure = on_failure
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: WallTimer | None = None
        self._soon: asyncio.Handle | None = None
        self._alarm_wall_s = 0.0
        self.waking_s = 0.0
        """How long before something is due the timer is set to."""

    def start(self) -> None:
        """Begin, on the event loop that is running."""
        self._loop = asyncio.get_running_loop()
        self._timer = wall_timer(self._loop, self._ring)
        self.wake()

    def stop(self) -> None:
        """No more turns; may be called twice."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self._loop = None

    def wake(self) -> None:
        """Something new is there to be done: have a turn as soon as the loop gets to it."""
        if self._soon is None and self._loop is not None:
            self._soon = self._loop.call_soon(self._run)

    def _ring(self) -> None:
        took_longer = time.monotonic() > self._alarm_wall_s + self.waking_s
        self.waking_s += WAKING_LEARNT_S if took_longer else -4 * WAKING_LEARNT_S
        self.waking_s = min(max(self.waking_s, 0.0), MOST_WAKING_S)
        self._run()

    def _run(self) -> None:
        if self._timer is None:
            return  # it rang while it was being stopped
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        try:
            next_wall_s = self._turn(time.monotonic() + SLICE_S)
        except Exception as error:
            self.stop()
            self._on_failure(error)
            return
        if next_wall_s == NEVER:
            self._timer.cancel()
            return
        self._alarm_wall_s = next_wall_s - self.waking_s
        if self._alarm_wall_s <= time.monotonic():
            self.wake()
        else:
            self._timer.set(self._alarm_wall_s)
