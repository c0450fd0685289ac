"""Prefill apart from decode: who computes what, and what the link between them does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simserve.config import EngineOptions
from simserve.metrics.records import FAILED, FINISHED
from simserve.metrics.summary import summarize
from simserve.simulation.cluster import ClusterSpec
from simserve.workload import Workload, synthetic_workload
from simulation.cluster.clusters import MODEL, Ran, spec

PROMPT_TOKENS = 1000
KV_BYTES = PROMPT_TOKENS * MODEL.kv_bytes_per_token("bfloat16")
OPTIONS = EngineOptions(max_num_batched_tokens=2048)


def apart(bandwidth_gb_per_s: float, decode: dict[str, Any] | None = None, **fields: Any) -> ClusterSpec:
    groups = [{"name": "p", "role": "prefill"}, {"name": "d", "role": "decode", **(decode or {})}]
    link = {"from": "p", "to": "d", "bandwidth_gb_per_s": bandwidth_gb_per_s}
    return spec(groups=groups, links=[{**link, **fields.pop("link", {})}], **fields)


def prompts(count: int, apart_s: float, output_tokens: int = 20) -> Workload:
    return Workload("p", np.arange(count) * apart_s, np.full(count, PROMPT_TOKENS), np.full(count, output_tokens))


def test_one_group_computes_prompts_and_the_other_answers() -> None:
    result = Ran(prompts(5, 1.0), apart(50.0), OPTIONS).result
    prefill, decode = result.members
    assert np.all(result.records.status == FINISHED)
    assert result.places.member.tolist() == [1] * 5
    assert result.totals.computed_prefill_tokens == 5 * PROMPT_TOKENS
    assert (prefill.steps, decode.output_tokens) == (5, 100)


def test_a_lone_answer_is_late_by_the_transfer_and_nothing_else() -> None:
    """Between its first two tokens lies the KV's way over the link; all else is as on one engine."""
    alone = Ran(prompts(1, 0.0), spec(), OPTIONS).records
    for latency_s in (0.0, 0.1):
        handed = Ran(prompts(1, 0.0), apart(2.0, link={"latency_s": latency_s}), OPTIONS).records
        assert handed.first_token_s == pytest.approx(alone.first_token_s)
        assert handed.finish_s - alone.finish_s == pytest.approx(KV_BYTES / 2e9 + latency_s)


def test_layer_by_layer_only_the_last_layer_is_left_to_send() -> None:
    alone = Ran(prompts(1, 0.0), spec(), OPTIONS).records
    handed = Ran(prompts(1, 0.0), apart(20.0, link={"layerwise": True}), OPTIONS).records
    assert handed.finish_s - alone.finish_s == pytest.approx(KV_BYTES / 20e9 / MODEL.num_layers)


def test_a_link_saturates_at_the_rate_that_its_bandwidth_gives() -> None:
    """Far more prompts than the link can carry: they leave it one after the other, back to back."""
    result = Ran(prompts(40, 0.0, output_tokens=2), apart(0.5), EngineOptions(max_num_batched_tokens=8192)).result
    ends = np.sort(result.records.finish_s)
    assert np.diff(ends)[5:] == pytest.approx(KV_BYTES / 0.5e9, rel=0.05)


def test_a_decode_replica_without_room_keeps_others_waiting() -> None:
    """Blocks for two prompts and their answers: the third waits until one of the two has ended."""
    small = {"engine": {"num_gpu_blocks": 140, "max_model_len": 1100}}
    options = EngineOptions(max_num_batched_tokens=8192, max_model_len=1100)
    result = Ran(prompts(3, 0.0, output_tokens=60), apart(100.0, small), options).result
    ends = np.sort(result.records.finish_s)
    assert ends[2] - ends[0] > 0.9 * (ends[0] - result.records.first_token_s.min())
    assert result.totals.preemptions == 0


def test_answers_go_on_after_either_side_has_failed() -> None:
    for group in "pd":
        failure = {"group": group, "replica": 0, "at_s": 0.3, "down_s": 0.5}
        result = Ran(prompts(10, 0.05, output_tokens=60), apart(1.0, failures=[failure]), OPTIONS).result
        assert np.all(result.records.status == FINISHED)
        assert np.all(result.records.output_tokens == 60)
        assert result.places.retries.sum() > 0


def test_without_any_decode_replica_nothing_ends_well() -> None:
    failure = {"group": "d", "replica": 0, "at_s": 0.3}
    result = Ran(prompts(10, 0.05, output_tokens=60), apart(1.0, failures=[failure]), OPTIONS).result
    assert np.all(result.records.status == FAILED)


def test_answers_flow_more_evenly_and_first_tokens_come_later_than_on_two_mixed_replicas() -> None:
    workload = synthetic_workload(200, 8.0, 2000, 60, seed=1)
    mixed = Ran(workload, spec(groups=[{"name": "all", "replicas": 2}]), OPTIONS).result
    split = Ran(workload, apart(100.0), OPTIONS).result
    one, other = (summarize(result.records, result.totals) for result in (mixed, split))
    assert other.itl.at[2] < 0.5 * one.itl.at[2]
    assert other.ttft.mean > 2 * one.ttft.mean
