"""A pipeline: who is in which batch, when batches are in which stage, and what no pipeline may do."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

import reference.pipeline
import reference.request
from scheduling.side_by_side import Case, DyadicTimer, FastLedger, Outcome, assert_equal, serve
from scheduling.test_equals_reference import cases
from simserve.latency.pipeline import PipelineTimer
from simserve.scheduling import Pipelined, PipelinedPriority, Request, SchedulerLimits, Status
from simserve.simulation import Run
from simserve.simulation.arrivals import Moment
from simserve.simulation.pipeline import Batch, PipelineReplica

EXAMPLES = int(os.environ.get("SIMSERVE_EQUALITY_EXAMPLES", "350"))

FAST = {"vllm-v1": Pipelined, "vllm-v1-priority": PipelinedPriority}
OBVIOUS = {"vllm-v1": reference.pipeline.Pipelined, "vllm-v1-priority": reference.pipeline.PipelinedPriority}


class DyadicStages(PipelineTimer):
    """Stages of different lengths, all times multiples of 2**-20 s; links slower than some stages."""

    def __init__(self, stages: int) -> None:
        self._count = stages

    @property
    def stages(self) -> int:
        return self._count

    def stations_s(self, decodes: int, context: int, chunks: Any, sampled: int) -> list[float]:
        whole = DyadicTimer().step_s(decodes, context, chunks, sampled)
        times = [(1 << 12) / (1 << 20)]
        for stage in range(self._count):
            times += [(1 << 10) / (1 << 20) * (decodes + len(chunks))] if stage else []
            times.append(whole * (stage % 2 + 1) / 2)
        return times


class BatchLedger(FastLedger):
    """Gaps are from batch to batch of the same decodes."""

    def run_done(self, run: Run, finished: list[Request]) -> None:
        if run.gaps_s is not None:
            run.durations_s = run.gaps_s
        super().run_done(run, finished)


def run_fast(case: Case, stages: int) -> Outcome:
    env = simpy.Environment()
    scheduler, ledger = FAST[case.policy](case.limits, stages), BatchLedger()
    replica = PipelineReplica(env, scheduler, DyadicStages(stages), ledger)
    requests = serve(env, case, replica, ledger, Request)
    assert replica.is_idle
    blocks = scheduler.blocks
    return Outcome(requests, ledger.steps, ledger.gaps_s, scheduler.least_free_blocks, blocks.free_blocks)


def run_obvious(case: Case, stages: int) -> Outcome:
    env = simpy.Environment()
    scheduler = OBVIOUS[case.policy](case.limits)
    replica = reference.pipeline.PipelineReplica(env, scheduler, DyadicStages(stages))
    requests = serve(env, case, replica, replica, reference.request.Request)
    ledger, blocks = replica.ledger, scheduler.blocks
    return Outcome(requests, ledger.steps, ledger.gaps_s, scheduler.least_free_blocks, blocks.free_blocks)


@pytest.mark.parametrize("policy", sorted(FAST))
def test_batches_and_times_are_those_of_stages_that_are_processes(policy: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(cases(policy), st.integers(1, 4))
    def law(case: Case, stages: int) -> None:
        assert_equal(case, run_fast(case, stages), run_obvious(case, stages))

    law()
