"""Two clocks tied together: simulated time goes ``time_scale`` times as fast as the wall's, and can be held.

Everything is reckoned from the last change of speed and never from tick to tick, so nothing drifts; a change of speed
moves no point in time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

NEVER = math.inf
AT_ONCE = -math.inf


class SimulatedClock:
    """``now_s`` in simulated seconds since the start; ``wall`` is a clock like :func:`time.monotonic`.

    At ``time_scale`` inf everything is due at once, and the time is that of the last event that :meth:`reached` told.
    """

    def __init__(self, time_scale: float, wall: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._time_scale = time_scale
        self._anchor_s = 0.0
        self._anchor_wall_s = wall()
        self._paused = False

    @property
    def time_scale(self) -> float:
        return self._time_scale

    @property
    def is_paused(self) -> bool:
        return self._paused

    def start(self) -> None:
        """It is 0 now."""
        self._anchor_s, self._anchor_wall_s = 0.0, self._wall()

    def now_s(self) -> float:
        """Simulated seconds now."""
        if self._paused or self._time_scale == math.inf:
            return self._anchor_s
        return self._anchor_s + (self._wall() - self._anchor_wall_s) * self._time_scale

    def is_due(self, time_s: float) -> bool:
        """Whether simulated time ``time_s`` has come."""
        if self._time_scale == math.inf and not self._paused:
            return time_s < math.inf
        return time_s <= self.now_s()

    def wall_s(self, time_s: float) -> float:
        """When, by the wall's clock, ``time_s`` comes or came if the speed stays; NEVER or AT_ONCE at the extremes."""
        if time_s == math.inf or (self._paused and time_s > self._anchor_s):
            return NEVER
        if self._paused or self._time_scale == math.inf:
            return AT_ONCE
        return self._anchor_wall_s + (time_s - self._anchor_s) / self._time_scale

    def reached(self, time_s: float) -> None:
        """The simulation has come to ``time_s``, which moves a clock that knows no speed of its own."""
        if time_s > self._anchor_s and self._time_scale == math.inf:
            self._anchor_s = time_s

    def set_time_scale(self, time_scale: float) -> None:
        """Go on at another speed (more than 0, or inf) from the simulated time that it is now."""
        self._settle()
        self._time_scale = time_scale

    def pause(self) -> None:
        """Stand still."""
        self._settle()
        self._paused = True

    def resume(self) -> None:
        """Go on from where it stands."""
        self._settle()
        self._paused = False

    def _settle(self) -> None:
        self._anchor_s, self._anchor_wall_s = self.now_s(), self._wall()
