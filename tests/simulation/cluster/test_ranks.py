"""Data-parallel ranks: each its own engine, those of a mixture of experts in step with each other."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.hardware import load_hardware
from simserve.metrics.records import FINISHED
from simserve.models import load_model
from simserve.simulation import Run
from simserve.simulation.cluster import Cluster, Member
from simserve.simulation.cluster.groups import prepare_groups
from simserve.simulation.cluster.result import result_of
from simserve.workload import synthetic_workload
from simulation.cluster.clusters import Watched, spec
from simulation.cluster.test_laws import assert_same, workloads

EXPERTS, DENSE = load_model("Qwen/Qwen3-30B-A3B"), load_model("meta-llama/Llama-3.1-8B-Instruct")
HARDWARE = load_hardware("H100")
EXAMPLES = settings(max_examples=40, deadline=None)


class Steps:
    """When each member's steps began and ended."""

    def __init__(self) -> None:
        self.spans: dict[str, list[tuple[float, float]]] = {}

    def ran(self, member: Member, run: Run) -> None:
        self.spans.setdefault(member.name, []).append((run.start_s, run.end_s))

    def ended(self, member: Member, requests: Any) -> None: ...

    def refused(self, member: Member, request: Any) -> None: ...

    def handed_over(self, member: Member, request: Any) -> None: ...


class Ran:
    """A cluster of ``model`` that has run, and what its members did when."""

    def __init__(self, workload: Any, model: Any = EXPERTS, options: Any = None, **fields: Any) -> None:
        cluster_spec = spec(**fields)
        options = options or EngineOptions(num_gpu_blocks=60, max_num_seqs=16, max_num_batched_tokens=64)
        self.source, self.steps = Watched(workload), Steps()
        self.cluster = Cluster(cluster_spec, prepare_groups(cluster_spec, model, HARDWARE, options), self.source, None)
        for member in self.cluster.members:
            member.observe_runs(self.steps)
        self.cluster.run()
        self.result = result_of(self.cluster, workload.name)
        self.records = self.result.records


def ranks(count: int, **more: Any) -> dict[str, Any]:
    return {"groups": [{"name": "all", "data_parallel_size": count, **more}]}


@EXAMPLES
@given(
    workloads(),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.sampled_from(["vllm-v1", "vllm-v0", "sglang"]),
    st.booleans(),
    st.sampled_from([None, 0.2]),
)
def test_everybody_ends_once_and_nothing_is_left(
    workload: Any, count: int, whole: bool, policy: str, asynchronous: bool, failing_s: float | None
) -> None:
    options = EngineOptions(
        num_gpu_blocks=60, max_num_seqs=16, max_num_batched_tokens=800, policy=policy,
        async_scheduling=asynchronous and policy != "vllm-v0",
    )  # fmt: skip
    failures = [{"group": "all", "mean_time_between_failures_s": failing_s, "down_s": 0.05}] if failing_s else []
    shape = ranks(count, enable_expert_parallel=whole, replicas=2)
    ran = Ran(workload, options=options, failures=failures, max_retries=1000, **shape)
    records = ran.records
    assert ran.source.ends == dict.fromkeys(range(len(workload)), 1)
    fits = workload.input_tokens + workload.output_tokens < 59 * 16
    assert np.all(records.status[fits] == FINISHED)
    assert np.array_equal(records.output_tokens[fits], workload.output_tokens[fits])
    assert int(records.gaps.count.sum()) == int((records.output_tokens[records.output_tokens > 0] - 1).sum())
    for member in ran.cluster.members:
        assert not member.held
        assert not member.scheduler.has_requests
        assert member.scheduler.blocks.used_blocks == 0


@EXAMPLES
@given(workloads(), st.sampled_from([2, 4]))
def test_ranks_that_share_experts_begin_and_end_their_steps_together(workload: Any, count: int) -> None:
    spans = Ran(workload, **ranks(count)).steps.spans.values()
    together = sorted({span for steps in spans for span in steps})
    for (_, end_s), (start_s, _) in pairwise(together):
        assert end_s <= start_s


@EXAMPLES
@given(workloads(), st.sampled_from([2, 3]))
def test_dense_ranks_are_replicas(workload: Any, count: int) -> None:
    options = EngineOptions(num_gpu_blocks=60, max_num_seqs=16, max_num_batched_tokens=64)
    as_ranks = Ran(workload, DENSE, options, **ranks(count))
    as_replicas = Ran(workload, DENSE, options, groups=[{"name": "all", "replicas": count}])
    assert_same(as_ranks.records, as_replicas.records)
    assert [member.name for member in as_ranks.result.members] == [f"all/0.{rank}" for rank in range(count)]


@EXAMPLES
@given(workloads())
def test_one_rank_of_a_mixture_of_experts_is_an_engine_by_itself(workload: Any) -> None:
    assert_same(Ran(workload, **ranks(1)).records, Ran(workload).records)


def test_a_rank_with_nothing_to_do_takes_part_with_dummies_and_slows_nobody_by_being_there() -> None:
    """One request at a time: one of two ranks works, the other has a dummy step for each of its steps."""
    ran = Ran(synthetic_workload(3, 0.1, 20, 5, seed=1), **ranks(2))
    lock_step = ran.cluster.members[0].replica._lock_step  # type: ignore[attr-defined]
    assert lock_step.dummy_steps == sum(len(steps) for steps in ran.steps.spans.values())


def test_a_rank_that_fails_takes_the_others_with_it() -> None:
    failures = [{"group": "all", "replica": 0, "at_s": 0.5, "down_s": 0.5}]
    ran = Ran(synthetic_workload(40, 40.0, 100, 40, seed=1), failures=failures, **ranks(4))
    assert [member.failures for member in ran.cluster.members] == [1, 1, 1, 1]
    assert np.all(ran.records.status == FINISHED)


def test_ranks_cannot_be_scaled_one_by_one() -> None:
    scaler = {"group": "all", "max_replicas": 4, "target": 1}
    with pytest.raises(ConfigError, match=r"autoscalers\[0\].group: 'all' has data_parallel_size 2"):
        Ran(synthetic_workload(1, 1.0, 10, 2, seed=1), autoscalers=[scaler], **ranks(2))


def test_groups_that_cannot_be_split_are_refused_by_field() -> None:
    with pytest.raises(Exception, match=r"groups\[0\] \(all\): enable_expert_parallel: .* has no experts"):
        Ran(synthetic_workload(1, 1.0, 10, 2, seed=1), DENSE, **ranks(2, enable_expert_parallel=True))
