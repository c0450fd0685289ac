"""The alarm that the pacer sleeps on."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

import pytest

from simserve.engines.timer import LoopTimer, TimerFd, WallTimer, wall_timer

MakeTimer = Callable[[asyncio.AbstractEventLoop, Callable[[], None]], WallTimer]

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has timerfd")


@pytest.fixture(params=[pytest.param(TimerFd, marks=needs_linux), LoopTimer])
def make(request: pytest.FixtureRequest) -> MakeTimer:
    kind: MakeTimer = request.param
    return kind


async def test_it_rings_once_and_not_before_its_time(make: MakeTimer) -> None:
    rung: list[float] = []
    timer = make(asyncio.get_running_loop(), lambda: rung.append(time.monotonic()))
    due_s = time.monotonic() + 0.03
    timer.set(due_s)
    await asyncio.sleep(0.1)
    timer.close()
    assert len(rung) == 1
    assert rung[0] >= due_s - 0.0015  # the loop's own timers round to milliseconds


async def test_a_time_that_has_passed_rings_at_once(make: MakeTimer) -> None:
    rung = asyncio.Event()
    timer = make(asyncio.get_running_loop(), rung.set)
    timer.set(time.monotonic() - 5)
    await asyncio.wait_for(rung.wait(), 1)
    timer.close()


async def test_setting_it_anew_replaces_the_time(make: MakeTimer) -> None:
    rung: list[int] = []
    timer = make(asyncio.get_running_loop(), lambda: rung.append(1))
    timer.set(time.monotonic() + 0.01)
    timer.set(time.monotonic() + 60)
    await asyncio.sleep(0.05)
    assert not rung
    timer.set(time.monotonic())
    await asyncio.sleep(0.05)
    timer.close()
    assert rung == [1]


async def test_cancelled_it_is_silent(make: MakeTimer) -> None:
    rung: list[int] = []
    timer = make(asyncio.get_running_loop(), lambda: rung.append(1))
    timer.set(time.monotonic() + 0.01)
    timer.cancel()
    await asyncio.sleep(0.05)
    timer.close()
    assert not rung


class LoopWithoutFiles(asyncio.SelectorEventLoop):
    """As on Windows, where the usual loop watches no files."""

    def add_reader(self, fd: object, callback: object, *args: object) -> None:
        raise NotImplementedError


def test_where_files_cannot_be_watched_the_usual_timer_does() -> None:
    loop = LoopWithoutFiles()
    try:
        # The loop itself watches its waker by another name.
        assert isinstance(wall_timer(loop, lambda: None), LoopTimer)
    finally:
        loop.close()
