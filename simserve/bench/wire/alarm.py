"""A timer exact to some tens of microseconds: the event loop's own rounds to whole milliseconds.

Gaps between requests at 500 per second are 2 ms; a client that rounds them sends a different process from the one it
was asked for. On Linux the kernel's timerfd wakes the loop; elsewhere the loop's timer has to do.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter

ABSOLUTE_TIME = 1
CLOCK_MONOTONIC = 1
"""The clock of ``time.perf_counter`` on Linux."""


class Alarm:
    """Calls ``callback`` in the loop at the time it was last set to, once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._descriptor = _timerfd()
        if self._descriptor is not None:
            loop.add_reader(self._descriptor, self._on_readable)

    def set(self, at_s: float) -> None:
        """Ring at ``at_s`` (of ``perf_counter``), at once if that is past; an earlier setting is forgotten."""
        if self._descriptor is not None:
            _set_timerfd(self._descriptor, max(at_s, 1e-9))
            return
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_later(max(at_s - perf_counter(), 0.0), self._callback)

    def close(self) -> None:
        """Never ring again."""
        if self._handle is not None:
            self._handle.cancel()
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _on_readable(self) -> None:
        if self._descriptor is None:
            return
        with suppress(BlockingIOError):  # it was set anew between ringing and being heard
            os.read(self._descriptor, 8)
            self._callback()


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


def _libc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    return libc if hasattr(libc, "timerfd_create") else None


LIBC = _libc()


def _timerfd() -> int | None:
    """A descriptor that becomes readable when its time has come; None where there is no such thing."""
    if LIBC is None:
        return None
    descriptor = int(LIBC.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        error = ctypes.get_errno()
        if error == errno.EMFILE:
            raise OSError(error, os.strerror(error))
        return None
    return descriptor


def _set_timerfd(descriptor: int, at_s: float) -> None:
    assert LIBC is not None
    seconds = int(at_s)
    value = _TimeSpec(seconds, int((at_s - seconds) * 1e9) or 1)
    LIBC.timerfd_settime(descriptor, ABSOLUTE_TIME, ctypes.byref(_TimerSpec(_TimeSpec(0, 0), value)), None)
