"""Whether the machine was ours while we measured: what other programs and the hypervisor took meanwhile.

On a machine with two busy cores, one operator measured without such a guard came out 18 times too slow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LIMIT = 0.05
"""Share of all cores' time that others may have."""
STEAL_LIMIT = 0.02
"""Share of all cores' time that the hypervisor may take away."""
TICK_S = 0.02
"""What the kernel's counters, which tick every 10 ms, may be off by."""
STAT = Path("/proc/stat")


class SystemTimes(NamedTuple):
    """Seconds since boot, summed over all cores, in which they were busy and in which they were taken away."""

    busy_s: float
    steal_s: float


class Guard:
    """Watches a stretch of time: ``start()``, then ``disturbance()`` says who else was there, or None.

    Only Linux tells; elsewhere nobody ever disturbs.
    """

    def __init__(
        self,
        read: Callable[[], SystemTimes | None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        own_time: Callable[[], float] = time.process_time,
        cores: int | None = None,
    ) -> None:
        self._read = read or system_times
        self._clock, self._own_time = clock, own_time
        self._cores = cores or os.cpu_count() or 1
        self.start()

    def start(self) -> None:
        """Begin to watch."""
        self._system, self._wall_s, self._own_s = self._read(), self._clock(), self._own_time()

    def disturbance(self) -> str | None:
        """What disturbed us since ``start``, in words; None if nothing did."""
        now = self._read()
        if self._system is None or now is None:
            return None
        available_s = (self._clock() - self._wall_s) * self._cores
        others_s = now.busy_s - self._system.busy_s - (self._own_time() - self._own_s)
        steal_s = now.steal_s - self._system.steal_s
        if steal_s - TICK_S > STEAL_LIMIT * available_s:
            return f"the hypervisor took {steal_s / available_s:.0%} of the processor's time"
        if others_s - TICK_S > LIMIT * available_s:
            return f"other programs used {others_s / available_s:.0%} of the processor's time"
        return None


def system_times() -> SystemTimes | None:
    """The kernel's counters (``man 5 proc_stat``); None where there are none."""
    try:
        words = STAT.read_text(encoding="ascii").split("\n", 1)[0].split()
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in words[1:9])
    except (OSError, ValueError):
        return None
    per_s = os.sysconf("SC_CLK_TCK")
    return SystemTimes((user + nice + system + irq + softirq) / per_s, steal / per_s)
