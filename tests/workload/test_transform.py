"""The same trace under other conditions: laws that hold for any workload, and what a bad value is told."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from simserve.errors import WorkloadError
from simserve.workload import (
    PrefixUnits,
    Workload,
    cut_window,
    drop_long_prompts,
    scale_rate,
    speed_up,
    synthetic_workload,
)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Up to 40 requests, each with lengths and units of its own, by which it is known again."""
    count = draw(st.integers(1, 40))
    gaps_s = draw(st.lists(st.floats(0, 10), min_size=count, max_size=count))
    numbers = np.arange(1, count + 1)
    units = np.arange(count).repeat(2)
    units[::2] = 1_000_000  # all begin with the same unit
    prefix = PrefixUnits(16, units, np.arange(0, 2 * count + 1, 2))
    return Workload("any", np.cumsum(gaps_s), numbers + 32, numbers, prefix)


def requests(workload: Workload) -> list[tuple[int, int, int]]:
    """(input, output, number of its own unit) of each request."""
    assert workload.prefix is not None
    own = [workload.prefix.of(row)[1] for row in range(len(workload))]
    return list(zip(workload.input_tokens.tolist(), workload.output_tokens.tolist(), own, strict=True))


@given(workloads(), st.floats(0.01, 100))
def test_speed_changes_times_and_nothing_else(workload: Workload, factor: float) -> None:
    faster = speed_up(workload, factor)
    assert faster.arrival_s == pytest.approx(workload.arrival_s / factor)
    assert requests(faster) == requests(workload)


@given(workloads(), st.floats(0, 200), st.floats(0.1, 200))
def test_a_window_holds_just_the_requests_of_its_time(workload: Workload, start_s: float, length_s: float) -> None:
    inside = (workload.arrival_s >= start_s) & (workload.arrival_s < start_s + length_s)
    if not inside.any():
        with pytest.raises(WorkloadError, match="has no request from"):
            cut_window(workload, start_s, length_s)
        return
    part = cut_window(workload, start_s, length_s)
    assert requests(part) == [row for row, kept in zip(requests(workload), inside, strict=True) if kept]
    assert part.arrival_s == pytest.approx(workload.arrival_s[inside] - start_s)


@given(workloads(), st.floats(0.3, 1, exclude_max=True), st.integers(0, 99))
def test_thinning_keeps_a_part_as_it_was(workload: Workload, factor: float, seed: int) -> None:
    try:
        thin = scale_rate(workload, factor, seed)
    except WorkloadError:
        reject()  # none was kept
    by_lengths = dict(zip(workload.input_tokens.tolist(), workload.arrival_s.tolist(), strict=True))
    assert len(thin) <= len(workload)
    assert [by_lengths[tokens] for tokens in thin.input_tokens.tolist()] == thin.arrival_s.tolist()
    assert np.all(np.diff(thin.input_tokens) > 0)  # in the same order, none twice


@given(workloads(), st.floats(1, 4), st.integers(0, 99))
def test_replicating_adds_copies_between_a_request_and_the_next(workload: Workload, factor: float, seed: int) -> None:
    more = scale_rate(workload, factor, seed)
    times = Counter(more.input_tokens.tolist())
    assert set(times) == set(workload.input_tokens.tolist())
    assert set(times.values()) <= {int(factor), int(factor) + 1}
    next_s = np.append(workload.arrival_s[1:], workload.arrival_s[-1])
    row = more.input_tokens - 33
    assert np.all(workload.arrival_s[row] <= more.arrival_s)
    assert np.all(more.arrival_s <= next_s[row] + 1e-9)
    again = scale_rate(workload, factor, seed)
    assert np.array_equal(more.arrival_s, again.arrival_s)
    assert np.array_equal(more.prefix.ids, again.prefix.ids)


@given(workloads(), st.integers(1, 4))
def test_each_crowd_of_copies_shares_within_itself_only(workload: Workload, factor: int) -> None:
    prefix = scale_rate(workload, factor, seed=0).prefix
    first_units = Counter(prefix.ids[::2].tolist())
    assert sorted(first_units.values()) == [len(workload)] * factor
    assert len(set(prefix.ids[1::2].tolist())) == len(workload) * factor
    assert not set(first_units) & set(prefix.ids[1::2].tolist())


def test_the_rate_is_scaled_by_the_factor() -> None:
    workload = synthetic_workload(20_000, 10, 1, 1, seed=0)
    for factor in (0.3, 1.0, 2.7):
        assert len(scale_rate(workload, factor, seed=5)) == pytest.approx(20_000 * factor, rel=0.02)


def test_another_seed_keeps_others() -> None:
    workload = synthetic_workload(100, 10, 1, 1, seed=0)
    assert not np.array_equal(scale_rate(workload, 0.5, 1).arrival_s, scale_rate(workload, 0.5, 2).arrival_s)


@given(workloads(), st.integers(1, 100))
def test_long_prompts_are_left_out_whole(workload: Workload, most: int) -> None:
    if most < workload.input_tokens.min():
        with pytest.raises(WorkloadError, match="no prompt of any has"):
            drop_long_prompts(workload, most)
        return
    assert requests(drop_long_prompts(workload, most)) == [row for row in requests(workload) if row[0] <= most]


def test_a_rate_that_leaves_nobody_is_one_sentence() -> None:
    with pytest.raises(WorkloadError, match="a rate scale of 1e-09 leaves no request of"):
        scale_rate(synthetic_workload(5, 1, 1, 1, seed=0), 1e-9, seed=0)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_factors_that_make_no_sense_are_refused(value: float) -> None:
    workload = synthetic_workload(5, 1, 1, 1, seed=0)
    with pytest.raises(WorkloadError, match="a speed of"):
        speed_up(workload, value)
    with pytest.raises(WorkloadError, match="a rate scale of"):
        scale_rate(workload, value, seed=0)


@pytest.mark.parametrize(("start_s", "length_s"), [(-1, 5), (0, 0), (float("nan"), 1), (0, float("nan"))])
def test_windows_that_make_no_sense_are_refused(start_s: float, length_s: float) -> None:
    with pytest.raises(WorkloadError, match="a window of"):
        cut_window(synthetic_workload(5, 1, 1, 1, seed=0), start_s, length_s)
