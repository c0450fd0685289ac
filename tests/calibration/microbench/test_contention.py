"""The guard tells our own work from that of others and of the hypervisor."""

from __future__ import annotations

import pytest

from simserve.calibration.microbench import contention
from simserve.calibration.microbench.contention import Guard, SystemTimes, system_times


class Machine:
    """Two cores on which time passes as told."""

    def __init__(self) -> None:
        self.wall_s = self.own_s = self.busy_s = self.steal_s = 0.0

    def pass_time(self, wall_s: float, own_s: float, others_s: float = 0.0, steal_s: float = 0.0) -> None:
        self.wall_s += wall_s
        self.own_s += own_s
        self.busy_s += own_s + others_s
        self.steal_s += steal_s

    def guard(self) -> Guard:
        return Guard(lambda: SystemTimes(self.busy_s, self.steal_s), lambda: self.wall_s, lambda: self.own_s, cores=2)


@pytest.mark.parametrize(
    ("others_s", "steal_s", "said"),
    [
        (0.0, 0.0, None),
        (0.1, 0.0, None),
        (0.5, 0.0, "other programs used 25% of the processor's time"),
        (0.0, 0.2, "the hypervisor took 10% of the processor's time"),
    ],
)
def test_only_what_others_took_disturbs(others_s: float, steal_s: float, said: str | None) -> None:
    machine = Machine()
    guard = machine.guard()

    machine.pass_time(1.0, own_s=1.0, others_s=others_s, steal_s=steal_s)

    assert guard.disturbance() == said


def test_a_new_start_forgets_what_was() -> None:
    machine = Machine()
    guard = machine.guard()
    machine.pass_time(1.0, own_s=0.1, others_s=1.9)

    guard.start()
    machine.pass_time(1.0, own_s=2.0)

    assert guard.disturbance() is None


def test_ticks_of_the_kernels_counters_are_no_disturbance() -> None:
    machine = Machine()
    guard = machine.guard()

    machine.pass_time(0.05, own_s=0.05, others_s=0.01)

    assert guard.disturbance() is None


def test_without_counters_nobody_ever_disturbs() -> None:
    guard = Guard(lambda: None)

    assert guard.disturbance() is None


def test_the_kernels_line_is_read_by_its_columns(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 4000 50 6 7 80 9 0\ncpu0 1 2 3\n", encoding="ascii")
    monkeypatch.setattr(contention, "STAT", stat)
    monkeypatch.setattr(contention.os, "sysconf", lambda name: {"SC_CLK_TCK": 100}[name])

    assert system_times() == SystemTimes(busy_s=1.63, steal_s=0.8)

    monkeypatch.setattr(contention, "STAT", tmp_path / "missing")
    assert system_times() is None
