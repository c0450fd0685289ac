"""Cases are timed in turn; what was disturbed is measured again, and what never was quiet is said to be so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simserve.calibration.microbench.bench import Bench, Pace, Series, unquiet_of
from simserve.calibration.microbench.contention import Guard
from simserve.calibration.microbench.stopwatch import CpuStopwatch, Sample

QUIET = Guard(lambda: None)


class Scripted:
    """A stopwatch whose calls return how long they took, and whether they were quiet."""

    def estimate_s(self, call: Callable[[], object]) -> float:
        return self.samples(call, 1, singly=True)[0].seconds

    def samples(self, call: Callable[[], object], count: int, singly: bool) -> list[Sample]:
        samples = []
        for _ in range(count):
            took = call()
            samples.append(took if isinstance(took, Sample) else Sample(float(str(took))))
        return samples


class Disturbed(Guard):
    """Disturbed in the windows named, counted from 0."""

    def __init__(self, *windows: int) -> None:
        super().__init__(lambda: None)
        self._windows, self._seen = windows, -1

    def disturbance(self) -> str | None:
        self._seen += 1
        return "somebody" if self._seen in self._windows else None


def in_turn(*values: object) -> Callable[[], object]:
    """A call that takes each of ``values``, after those that warm it up, and the last for ever."""
    left = [values[0], *values]
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_the_fastest_fifth_stands_for_an_operator_and_the_middle_for_a_step() -> None:
    seconds = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    pace = Pace(rounds=6, block_s=0.05)

    operator = Bench(Scripted(), QUIET).measure({"it": in_turn(*seconds)}, pace)["it"]
    step = Bench(Scripted(), QUIET).measure({"it": in_turn(*seconds)}, pace, percentile=50)["it"]

    assert operator.seconds == pytest.approx(0.2)
    assert step.seconds == pytest.approx(0.35)
    assert operator.noise == pytest.approx(0.2 / 0.35, rel=0.01)
    assert operator.samples == 6


def test_rounds_go_through_all_cases_so_that_drift_hits_them_alike() -> None:
    calls: list[str] = []

    def noted(name: str) -> Callable[[], object]:
        return lambda: calls.append(name) or 0.5

    Bench(Scripted(), QUIET).measure({"a": noted("a"), "b": noted("b")}, Pace(rounds=40, block_s=0.1))

    rounds = ["".join(calls[at : at + 2]) for at in range(len(calls) - 80, len(calls), 2)]
    assert set(rounds) == {"ab", "ba"}, "in an order of its own each time"


def test_between_rounds_other_things_can_be_done() -> None:
    series = Series(Bench(Scripted(), QUIET), {"it": in_turn(3.0, 1.0, 2.0)}, Pace(rounds=3, block_s=0.0))

    series.round()
    assert series.timings(50)["it"].seconds == 3.0
    series.round()
    series.round()
    assert series.timings(50)["it"].seconds == 2.0


def test_what_follows_itself_is_timed_from_the_second_call_on() -> None:
    cases = {"decode": in_turn(9.0, 1.0, 9.0, 1.0), "prompt": in_turn(5.0, 6.0)}
    series = Series(Bench(Scripted(), QUIET), cases, Pace(rounds=2, block_s=0.0), lambda key: key == "decode")

    series.round()
    series.round()

    timings = series.timings(100)
    assert (timings["decode"].seconds, timings["prompt"].seconds) == (1.0, 6.0)


def test_a_disturbed_window_is_measured_again() -> None:
    bench = Bench(Scripted(), Disturbed(0))

    timing = bench.measure({"it": in_turn(9.0, 1.0)}, Pace(rounds=3, block_s=0.1))["it"]

    assert timing.seconds == 1.0
    assert timing.quiet
    assert bench.disturbances == ["somebody"]
    assert unquiet_of(bench.timings) == 0.0


def test_what_never_was_quiet_is_kept_and_counted() -> None:
    bench = Bench(Scripted(), Disturbed(*range(100)))

    timings = bench.measure({"it": in_turn(2.0)}, Pace(rounds=3, block_s=0.1, retries=2))

    assert timings["it"].seconds == 2.0
    assert not timings["it"].quiet
    assert unquiet_of(bench.timings) == 1.0


def test_samples_that_had_to_wait_are_left_out() -> None:
    samples = in_turn(Sample(9.0, False), 1.0, 1.0, Sample(9.0, False), 1.0)

    timing = Bench(Scripted(), QUIET).measure({"it": samples}, Pace(rounds=5, block_s=0.1), percentile=100)["it"]

    assert (timing.seconds, timing.samples, timing.quiet) == (1.0, 3, True)


def test_progress_is_told_after_every_round() -> None:
    told: list[float] = []

    Bench(Scripted(), QUIET).measure({"it": in_turn(1.0)}, Pace(rounds=4, block_s=0.1), progress=told.append)

    assert told == [0.25, 0.5, 0.75, 1.0]


def test_the_processors_clock_takes_the_time_of_real_calls() -> None:
    samples = CpuStopwatch(threads=1).samples(lambda: sum(range(100_000)), 5, singly=True)

    assert len(samples) == 5
    assert all(0 < sample.seconds < 1 for sample in samples)
    assert len(CpuStopwatch(threads=1).samples(lambda: None, 5, singly=False)) == 1
