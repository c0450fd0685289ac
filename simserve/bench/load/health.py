"""How the client itself is doing: what it can be late by, and what it costs."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from time import perf_counter, process_time

TICK_S = 0.05


@dataclass
class Health:
    """Of one process over a run. ``loop_lags_s`` says by how much each tick came late, to the millisecond."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    loop_lags_s: list[float] = field(default_factory=list)
    connections_opened: int = 0
    stale_connections: int = 0

    @property
    def cpu_share(self) -> float:
        """CPU seconds per second; 1 is a whole core."""
        return self.cpu_s / self.wall_s if self.wall_s > 0 else math.nan


class Pulse:
    """Beats every 50 ms of the loop and notes how late."""

    def __init__(self, loop: asyncio.AbstractEventLoop, health: Health) -> None:
        self._loop = loop
        self._health = health
        self._started_s = perf_counter()
        self._cpu_at_start_s = process_time()
        self._due_s = self._started_s
        self._handle: asyncio.TimerHandle | None = None
        self._beat()

    def stop(self) -> None:
        """Beat no more, and settle what the run has cost."""
        if self._handle is not None:
            self._handle.cancel()
        self._health.cpu_s = process_time() - self._cpu_at_start_s
        self._health.wall_s = perf_counter() - self._started_s

    def _beat(self) -> None:
        now = perf_counter()
        if self._handle is not None:
            self._health.loop_lags_s.append(max(now - self._due_s, 0.0))
        self._due_s = now + TICK_S
        self._handle = self._loop.call_later(TICK_S, self._beat)
