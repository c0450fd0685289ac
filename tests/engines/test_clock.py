"""The two clocks: simulated time follows the wall's at any speed, and no change of speed moves a point in time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.engines.clock import AT_ONCE, NEVER, SimulatedClock


@dataclass
class Wall:
    """A wall clock that a test moves; it does not begin at 0."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_time_goes_as_many_times_faster_as_asked() -> None:
    wall = Wall()
    clock = SimulatedClock(10.0, wall)
    wall.now_s += 2.0
    assert clock.now_s() == pytest.approx(20.0)
    assert clock.is_due(20.0)
    assert not clock.is_due(20.5)
    assert clock.wall_s(30.0) == pytest.approx(1003.0)


def test_a_clock_that_is_held_makes_nothing_due_and_goes_on_from_there() -> None:
    wall = Wall()
    clock = SimulatedClock(1.0, wall)
    wall.now_s += 3.0
    clock.pause()
    wall.now_s += 100.0
    assert clock.now_s() == pytest.approx(3.0)
    assert clock.wall_s(3.5) == NEVER
    assert clock.wall_s(2.5) == AT_ONCE
    clock.resume()
    assert clock.wall_s(3.5) == pytest.approx(wall.now_s + 0.5)


def test_at_infinite_speed_all_is_due_and_events_move_the_clock() -> None:
    clock = SimulatedClock(math.inf, Wall())
    assert clock.is_due(1e9)
    assert not clock.is_due(math.inf)  # which is when nothing will ever happen
    clock.reached(7.0)
    assert clock.now_s() == 7.0
    assert clock.wall_s(8.0) == AT_ONCE
    clock.set_time_scale(1.0)
    assert clock.now_s() == 7.0


def test_an_infinitely_fast_clock_can_be_held() -> None:
    clock = SimulatedClock(math.inf, Wall())
    clock.reached(7.0)
    clock.pause()
    assert not clock.is_due(7.5)
    clock.resume()
    assert clock.is_due(7.5)


changes = st.lists(
    st.tuples(
        st.floats(0.0, 1e4),
        st.one_of(st.floats(1e-3, 1e3), st.just("pause"), st.just("resume")),
    ),
    max_size=20,
)


@given(changes)
def test_no_change_moves_the_time_that_it_is(history: list[tuple[float, float | str]]) -> None:
    """Simulated time is continuous, never runs backwards, and ``wall_s`` is its inverse."""
    wall = Wall()
    clock = SimulatedClock(1.0, wall)
    last_s = 0.0
    for wait_s, change in history:
        wall.now_s += wait_s
        before_s = clock.now_s()
        assert before_s >= last_s
        if change == "pause":
            clock.pause()
        elif change == "resume":
            clock.resume()
        else:
            assert isinstance(change, float)
            clock.set_time_scale(change)
        last_s = clock.now_s()
        assert last_s == pytest.approx(before_s, rel=1e-12)
        if not clock.is_paused:
            assert clock.wall_s(last_s + 5.0) == pytest.approx(wall.now_s + 5.0 / clock.time_scale)
