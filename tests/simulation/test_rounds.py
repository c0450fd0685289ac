"""A benchmark that is repeated at one server: the same prompts, found in its prefix cache."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.errors import WorkloadError
from simserve.hardware import load_hardware
from simserve.metrics.latency import ttft_s
from simserve.metrics.records import FINISHED, REJECTED, Records
from simserve.models import load_model
from simserve.simulation import ClosedLoop, Rounds, Source, simulate
from simserve.workload import UniformLength, Workload, synthetic_workload

MODEL, HARDWARE = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100")


def run(source: Source, **options: object) -> Records:
    return simulate(source, MODEL, HARDWARE, EngineOptions(**options)).records


def requests(count: int, rate: float = math.inf, seed: int = 0) -> Workload:
    return synthetic_workload(count, rate, UniformLength(1, 400), UniformLength(1, 60), seed)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 4), st.sampled_from([None, 1, 3]), st.integers(0, 99))
def test_every_round_sends_every_request_after_the_round_before_is_answered(count, rounds, users, seed) -> None:
    workload = requests(count, rate=20.0 if users is None else math.inf, seed=seed)
    records = run(Rounds(workload, rounds, users))

    assert np.all(records.status == FINISHED)
    assert np.array_equal(records.input_tokens, np.tile(workload.input_tokens, rounds))
    assert np.array_equal(records.output_tokens, np.tile(workload.output_tokens, rounds))
    for start in range(count, rounds * count, count):
        assert records.arrival_s[start] >= records.finish_s[start - count : start].max()


def test_one_round_is_the_closed_loop() -> None:
    workload = requests(40)
    once, loop = run(Rounds(workload, 1, users=4)), run(ClosedLoop(workload, 4))

    assert np.array_equal(once.finish_s, loop.finish_s)


def test_from_the_second_round_on_prompts_are_in_the_prefix_cache() -> None:
    records = run(Rounds(synthetic_workload(10, math.inf, 1000, 20, seed=0), 3, users=2))
    first, *later = ttft_s(records).reshape(3, 10).mean(axis=1)

    assert records.cached_tokens.reshape(3, 10)[0].sum() == 0
    assert set(records.cached_tokens[10:].tolist()) == {992}, "all full blocks but that of the last token"
    assert max(later) < first / 3


def test_without_a_prefix_cache_every_round_is_the_same() -> None:
    records = run(Rounds(requests(12), 2, users=3), enable_prefix_caching=False)

    assert ttft_s(records)[12:] == pytest.approx(ttft_s(records)[:12])


def test_a_request_that_cannot_fit_is_rejected_in_every_round_and_the_rounds_go_on() -> None:
    records = run(Rounds(synthetic_workload(3, math.inf, 3000, 5, seed=0), 2, users=1), max_model_len=1000)

    assert np.all(records.status == REJECTED)
    assert len(records) == 6


def test_none_at_all_are_refused() -> None:
    with pytest.raises(WorkloadError, match="0 rounds of 2 users send no requests"):
        Rounds(requests(3), 0, 2)
