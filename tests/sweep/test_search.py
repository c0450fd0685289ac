"""The highest load that meets an SLO."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simserve.metrics.result import Result
from simserve.sweep.search import Probes, find_knee, walls
from simserve.sweep.slo import parse_slo

SLO = parse_slo("ttft:p99=1s tpot:p90=50ms")


def server(ttft_at: float, tpot_at: float) -> Probes:
    """Latencies grow with the load and pass their limits at ``ttft_at`` and ``tpot_at``."""

    def run(load: float) -> Result:
        return {"failed": 0, "p99_ttft_ms": 1000 * load / ttft_at, "p90_tpot_ms": 50 * load / tpot_at, "preemptions": 0}

    return Probes(run)


@given(st.floats(0.02, 5e4), st.floats(0.1, 1000.0), st.sampled_from([0.005, 0.02, 0.1]))
def test_the_knee_is_found_within_the_tolerance_from_wherever_one_begins(
    knee_at: float, first: float, tolerance: float
) -> None:
    probes = server(knee_at, 1e9)
    knee = find_knee(probes, SLO.met, first, 0.01, 1e5, tolerance)
    assert knee.load is not None
    assert knee.missed_at is not None
    assert knee.load <= knee_at * (1 + 1e-5)
    assert knee.missed_at >= knee_at * (1 - 1e-5)
    assert knee.missed_at <= knee.load * (1 + tolerance) * (1 + 1e-5)


@given(st.integers(1, 5000), st.integers(1, 300))
def test_users_are_counted_to_the_last_one(knee_at: int, first: int) -> None:
    probes = server(knee_at + 0.5, 1e9)
    probes.whole = True
    knee = find_knee(probes, SLO.met, first, 1, 1e5, 1e-9)
    assert (knee.load, knee.missed_at) == (knee_at, knee_at + 1)
    assert len(probes.done) < 45


def test_a_load_that_always_holds_and_one_that_never_does() -> None:
    assert find_knee(server(1e9, 1e9), SLO.met, 4, 1, 64, 0.02).missed_at is None
    assert find_knee(server(1e-9, 1e9), SLO.met, 4, 1, 64, 0.02).load is None


def test_no_load_is_run_twice() -> None:
    loads: list[float] = []
    probes = server(10, 14)
    run = probes.run
    probes.run = lambda load: loads.append(load) or run(load)  # type: ignore[func-returns-value]
    knee = find_knee(probes, SLO.met, 4, 0.1, 1000, 0.02)
    walls(probes, SLO, knee, 0.1, 1000)
    assert len(loads) == len(set(loads))


def test_the_first_wall_binds_and_the_next_one_comes_after() -> None:
    probes = server(10, 14)
    knee = find_knee(probes, SLO.met, 4, 0.1, 1000, 0.02)
    first, second = walls(probes, SLO, knee, 0.1, 1000)
    assert (first.limit, first.load) == ("ttft:p99=1s", knee.load)
    assert second.limit == "tpot:p90=50ms"
    assert second.load is not None
    assert 12.5 <= second.load <= 14


def test_a_wall_too_far_away_is_said_to_be() -> None:
    probes = server(10, 1e6)
    knee = find_knee(probes, SLO.met, 4, 0.1, 1000, 0.02)
    assert walls(probes, SLO, knee, 0.1, 1000)[1].because.startswith("holds up to")
