"""Synthetic workloads: what was asked for, the same for the same seed, and large ones at once."""

from __future__ import annotations

import time

import numpy as np
import pytest

from simserve.errors import WorkloadError
from simserve.workload import LognormalLength, SteadyArrivals, UniformLength, synthetic_workload


def test_a_workload_has_the_lengths_and_the_rate_asked_for() -> None:
    workload = synthetic_workload(num_prompts=5000, request_rate=20, input_len=128, output_len=32, seed=0)

    assert len(workload) == 5000
    assert set(workload.input_tokens) == {128}
    assert set(workload.output_tokens) == {32}
    assert workload.arrival_s[-1] == pytest.approx(5000 / 20, rel=0.08)
    assert workload.prefix is None


def test_the_seed_alone_decides_the_arrivals() -> None:
    first = synthetic_workload(100, 5, 10, 10, seed=3)
    again = synthetic_workload(100, 5, 10, 10, seed=3)
    other = synthetic_workload(100, 5, 10, 10, seed=4)

    assert np.array_equal(first.arrival_s, again.arrival_s)
    assert not np.array_equal(first.arrival_s, other.arrival_s)


def test_published_results_stay_reproducible() -> None:
    """These times must never change: a seed names a workload for good."""
    workload = synthetic_workload(3, 1.0, 10, 10, seed=0)
    assert workload.arrival_s == pytest.approx([3.2935277908098275, 4.056658528959677, 5.309025651575071])


def test_other_lengths_leave_the_arrivals_alone() -> None:
    short, long = synthetic_workload(50, 5, 10, 10, seed=3), synthetic_workload(50, 5, 999, 500, seed=3)
    assert np.array_equal(short.arrival_s, long.arrival_s)


def test_each_thing_drawn_has_a_stream_of_its_own() -> None:
    plain = synthetic_workload(50, 5, UniformLength(1, 99), UniformLength(1, 99), seed=3)
    bursty = synthetic_workload(50, SteadyArrivals(5, 0.1), UniformLength(1, 99), UniformLength(1, 99), seed=3)
    longer = synthetic_workload(50, 5, LognormalLength(500, 1), UniformLength(1, 99), seed=3)

    assert np.array_equal(plain.input_tokens, bursty.input_tokens)
    assert np.array_equal(plain.output_tokens, longer.output_tokens)
    assert np.array_equal(plain.arrival_s, longer.arrival_s)
    assert not np.array_equal(plain.input_tokens, plain.output_tokens)


def test_the_name_says_how_it_was_drawn() -> None:
    workload = synthetic_workload(5, SteadyArrivals(8, 0.5), UniformLength(1, 9), LognormalLength(64, 1), seed=0)
    assert workload.name == "synthetic-5xuniform:1:9+lognormal:64:1@8~0.5"


def test_a_million_requests_take_well_under_a_second() -> None:
    started = time.process_time()
    assert len(synthetic_workload(1_000_000, 100, 512, 128, seed=0)) == 1_000_000
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_prompts": 0}, "0 requests is empty"),
        ({"input_len": 0}, "0 tokens is too short"),
        ({"output_len": -3}, "-3 tokens is too short"),
        ({"seed": -1}, "seed is -1"),
        ({"request_rate": 0}, "request rate is 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(change: dict[str, int], sentence: str) -> None:
    arguments = {"num_prompts": 5, "request_rate": 1, "input_len": 4, "output_len": 4, "seed": 0}
    with pytest.raises(WorkloadError, match=sentence):
        synthetic_workload(**(arguments | change))
