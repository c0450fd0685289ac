"""One alarm on the event loop, at a point of the wall's clock, as exact as the machine allows.

asyncio and uvloop round their timers to whole milliseconds. A timerfd of Linux is exact to some tens of microseconds
and is to the loop one more file to watch; elsewhere the loop's own timer has to do.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import Protocol

CLOCK_MONOTONIC = 1
TFD_TIMER_ABSTIME = 1


class WallTimer(Protocol):
    """Calls back once, at or soon after the time it was last set to."""

    def set(self, wall_s: float) -> None:
        """Ring at ``wall_s`` of :func:`time.monotonic`, or at once if that has passed; replaces what was set."""
        ...

    def cancel(self) -> None:
        """Do not ring."""
        ...

    def close(self) -> None:
        """Give back what the system lent; the timer is of no use afterwards."""
        ...


def wall_timer(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> WallTimer:
    """The most exact timer that this machine and ``loop`` have."""
    if sys.platform == "linux" and ctypes.sizeof(ctypes.c_long) == 8:
        try:
            return TimerFd(loop, callback)
        except (OSError, AttributeError, NotImplementedError):
            pass  # an old kernel, a strict sandbox, or a loop that cannot watch files
    return LoopTimer(loop, callback)


class _Timerspec(ctypes.Structure):
    """``struct itimerspec``: the interval, which stays 0, and the time, each in seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


class TimerFd:
    """A timerfd(2) on CLOCK_MONOTONIC, which is what :func:`time.monotonic` reads on Linux.

    Raises OSError or AttributeError where there are none, NotImplementedError for a loop without ``add_reader``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = _Timerspec()
        self._pointer = ctypes.byref(self._spec)
        self._loop = loop
        self._callback = callback
        try:
            loop.add_reader(self._fd, self._ring)
        except NotImplementedError:
            os.close(self._fd)
            raise

    def set(self, wall_s: float) -> None:
        wall_ns = max(1, int(wall_s * 1e9))  # 0 would disarm it
        self._spec.at_s, self._spec.at_ns = divmod(wall_ns, 1_000_000_000)
        self._libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, self._pointer, None)

    def cancel(self) -> None:
        self._spec.at_s = self._spec.at_ns = 0
        self._libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, self._pointer, None)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # it was set anew after it had rung
        self._callback()


class LoopTimer:
    """The loop's own timer, in whole milliseconds; one that rings too early leads to another, so it never lags."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None

    def set(self, wall_s: float) -> None:
        self.cancel()
        self._handle = self._loop.call_later(max(0.0, wall_s - time.monotonic()), self._callback)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def close(self) -> None:
        self.cancel()
