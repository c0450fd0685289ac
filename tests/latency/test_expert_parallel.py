"""Experts over devices: what each device holds, who is fullest, and what a step of several ranks takes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.errors import ModelError, SimServeError
from simserve.hardware import load_hardware
from simserve.latency.expert_parallel import ExpertTimer
from simserve.latency.routing import FullestDevice, remote_devices
from simserve.models import load_model, with_experts_over
from simserve.simulation import prepare
from simserve.simulation.parallelism import Ranks

MODEL = load_model("Qwen/Qwen3-30B-A3B")
MIXTRAL = load_model("mistralai/Mixtral-8x7B-v0.1")
DENSE = load_model("Qwen/Qwen3-8B")
HARDWARE = load_hardware("H100")


def timer(ranks: int, expert_parallel: bool, **options: Any) -> Any:
    return prepare(MODEL, HARDWARE, EngineOptions(**options), ranks=Ranks(ranks, expert_parallel)).timer


@pytest.mark.parametrize("model", [MODEL, MIXTRAL])
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_experts_over_devices_are_held_once_however_they_are_split(model: Any, devices: int) -> None:
    rest = model.weight_bytes_for("bfloat16") - _experts_bytes(model)
    for whole in (False, True):
        split = with_experts_over(model, devices, whole=whole)
        assert split.weight_bytes_for("bfloat16") == rest + _experts_bytes(model) // devices


def test_two_ranks_of_one_device_leave_more_for_the_cache_than_a_replica_each() -> None:
    shared = prepare(MODEL, HARDWARE, EngineOptions(), ranks=Ranks(2, True))
    alone = prepare(MODEL, HARDWARE, EngineOptions())
    assert shared.weight_bytes < alone.weight_bytes * 0.6
    assert shared.limits.num_blocks > alone.limits.num_blocks


def test_dense_ranks_share_nothing() -> None:
    shared, alone = (prepare(DENSE, HARDWARE, EngineOptions(), ranks=ranks) for ranks in (Ranks(4), Ranks()))
    assert shared.limits == alone.limits
    assert shared.timer is alone.timer


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([(128, 8), (8, 2), (60, 4)]), st.sampled_from([2, 4]), st.integers(1, 20000))
def test_the_fullest_device_has_more_than_its_share_and_never_all_there_is(
    experts: tuple[int, int], devices: int, tokens: int
) -> None:
    count, per_token = experts
    fullest, rows = FullestDevice(count, per_token, devices), np.array([float(tokens)])
    pairs, visited = float(fullest.pairs(rows)[0]), float(fullest.visited(rows)[0])
    assert tokens * per_token / devices <= pairs * (1 + 1e-9)
    assert pairs <= tokens * min(per_token, count // devices) + 1e-9
    assert 0 < visited <= count / devices
    mean_visited = count / devices * (1 - (1 - per_token / count) ** tokens)
    assert visited >= mean_visited * 0.98


def test_imbalance_fades_as_batches_grow() -> None:
    fullest = FullestDevice(128, 8, 8)
    rows = np.array([1.0, 8.0, 64.0, 512.0, 4096.0])
    over = fullest.pairs(rows) / (rows * 8 / 8)
    assert all(one > other for one, other in pairwise(over))
    assert over[0] > 2.0
    assert over[-1] < 1.05


def test_a_token_goes_to_as_many_other_devices_as_its_experts_are_on() -> None:
    assert remote_devices(8, 8, 8) == pytest.approx(7)
    assert remote_devices(8, 1, 8) == pytest.approx(7 / 8)
    assert remote_devices(8, 2, 2) == pytest.approx(1 - (4 * 3) / (8 * 7))


def test_a_step_takes_what_the_slowest_rank_takes() -> None:
    ranks = timer(4, True)
    assert isinstance(ranks, ExpertTimer)
    small, large = (8, 8 * 500, [], 8), (200, 200 * 2000, [], 200)
    assert ranks.ranks_s([large]) == ranks.ranks_s([small, large, small]) > ranks.ranks_s([small])
    assert ranks.step_s(*large) == ranks.ranks_s([large])


@settings(max_examples=40, deadline=None)
@given(st.booleans(), st.integers(1, 600), st.integers(1, 4000), st.integers(2, 60))
def test_quiet_steps_are_single_steps_one_after_the_other(whole: bool, decodes: int, context: int, steps: int) -> None:
    ranks = timer(1, whole, tensor_parallel_size=2)
    at_once = ranks.decode_steps_s(decodes, decodes * context, steps)
    single = [ranks.step_s(decodes, decodes * (context + index), [], decodes) for index in range(steps)]
    assert list(at_once) == pytest.approx(single, rel=1e-12)


def test_no_step_is_faster_than_reading_what_it_must() -> None:
    for ranks, whole, tensor_parallel in ((2, True, 1), (4, False, 1), (2, True, 2)):
        made = timer(ranks, whole, tensor_parallel_size=tensor_parallel)
        for decodes in (1, 32, 256, 1000):
            work = made.total_work(*(np.array([float(x)]) for x in (1, decodes, decodes * 1000, 0, 0, 0, decodes)))
            seconds = made.ranks_s([(decodes, decodes * 1000, [], decodes)] * ranks)
            assert seconds > work.bytes_moved / HARDWARE.bandwidth_bytes_per_s
            assert seconds > work.flops / HARDWARE.peak_flops_for("bfloat16")


def test_the_work_of_all_devices_is_that_of_the_model() -> None:
    """FLOPs of a prompt over 2 ranks of 2 devices: half the tokens each, all of them the whole model's."""
    columns = (1.0, 0.0, 0.0, 1000.0, 500_500.0, 1000.0, 1.0)
    alone = prepare(MODEL, HARDWARE, EngineOptions()).timer.total_work(*(np.array([x]) for x in columns))
    for whole in (False, True):
        made = timer(2, whole, tensor_parallel_size=2)
        assert made.total_work(*(np.array([x]) for x in columns)).flops * 2 == pytest.approx(alone.flops, rel=0.01)


@pytest.mark.parametrize(
    ("model", "ranks", "options", "sentence"),
    [
        (DENSE, Ranks(1, True), {}, "enable_expert_parallel: Qwen/Qwen3-8B has no experts"),
        (MIXTRAL, Ranks(3, True), {}, "has 8 experts, which 3 devices"),
        (MODEL, Ranks(5), {}, "768 expert columns cannot be divided evenly"),
        (MODEL, Ranks(2), {"pipeline_parallel_size": 2}, "pipeline_parallel_size 2: experts"),
        (MODEL, Ranks(2), {"kv_offloading_size": 8.0}, "kv_offloading_size: ranks that share experts"),
    ],
)
def test_what_cannot_be_split_is_refused_in_a_sentence(model: Any, ranks: Ranks, options: Any, sentence: str) -> None:
    with pytest.raises((ModelError, SimServeError), match=sentence):
        prepare(model, HARDWARE, EngineOptions(**options), ranks=ranks)


def _experts_bytes(model: Any) -> int:
    moe = model.moe
    return 2 * 3 * model.hidden_size * moe.expert_intermediate_size * moe.num_experts * len(moe.sparse_layers)
