"""The pacer calls for a turn when it is due, and lets others have theirs."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from simserve.engines.clock import AT_ONCE, NEVER
from simserve.engines.pacer import MOST_WAKING_S, Pacer
from simserve.engines.timer import TimerFd


async def test_a_turn_comes_at_the_start_when_it_is_due_and_when_woken() -> None:
    turns: list[float] = []
    due = [0.03, NEVER, NEVER]
    start_s = time.monotonic()

    def turn(until_wall_s: float) -> float:
        turns.append(time.monotonic() - start_s)
        wait_s = due.pop(0)
        return NEVER if wait_s == NEVER else time.monotonic() + wait_s

    pacer = Pacer(turn, on_failure=lambda error: None)
    pacer.start()
    await asyncio.sleep(0.1)
    assert len(turns) == 2
    assert turns[1] - turns[0] >= 0.0299
    pacer.wake()
    pacer.wake()
    await asyncio.sleep(0.01)
    assert len(turns) == 3
    pacer.stop()


async def test_work_without_end_leaves_the_loop_to_others() -> None:
    turns = 0

    def turn(until_wall_s: float) -> float:
        nonlocal turns
        turns += 1
        return AT_ONCE

    pacer = Pacer(turn, on_failure=lambda error: None)
    pacer.start()
    for _ in range(20):
        await asyncio.sleep(0)  # comes back, again and again
    pacer.stop()
    assert turns >= 10
    stopped_at = turns
    pacer.wake()
    await asyncio.sleep(0.01)
    assert turns == stopped_at


async def test_a_failure_is_told_once_and_ends_it() -> None:
    failures: list[Exception] = []

    def turn(until_wall_s: float) -> float:
        raise ValueError("it broke")

    pacer = Pacer(turn, failures.append)
    pacer.start()
    await asyncio.sleep(0.01)
    pacer.wake()
    await asyncio.sleep(0.01)
    assert [str(error) for error in failures] == ["it broke"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has timerfd")
async def test_it_learns_how_long_waking_up_takes_and_rings_that_much_sooner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here the machine takes 0.3 ms, always; the pacer rings that much sooner and waits for the rest in rounds."""
    waking: list[float] = []
    rung_often = asyncio.Event()
    due_s = 0.0

    class Slow(TimerFd):
        def set(self, wall_s: float) -> None:
            waking.append(wall_s)
            if len(waking) == 400:
                rung_often.set()
            super().set(wall_s + 0.0003)

    def turn(until_wall_s: float) -> float:
        nonlocal due_s
        now = time.monotonic()
        if now < due_s:
            return due_s  # woken too soon: nothing is due yet
        due_s = now + 0.002
        return due_s

    monkeypatch.setattr("simserve.engines.pacer.wall_timer", Slow)
    pacer = Pacer(turn, on_failure=lambda error: None)
    pacer.start()
    await asyncio.wait_for(rung_often.wait(), 30)
    pacer.stop()
    assert 0.0001 < pacer.waking_s <= MOST_WAKING_S
