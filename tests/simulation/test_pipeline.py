"""A pipeline: who is in which batch, when batches are in which stage, and what no pipeline may do."""

from __future__ import annotations

import os
from typing import Any

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
from simserve.simulation.pipeline import PipelineReplica

EXAMPLES = int(os.environ.get("SIMSERVE_EQUALITY_EXAMPLES", "150"))

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
            run._durations_s = run.gaps_s
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


class EqualStages(DyadicStages):
    """A second in each stage, none in the host or on links."""

    def stations_s(self, decodes: int, context: int, chunks: Any, sampled: int) -> list[float]:
        return [0.0] + [1.0, 0.0] * (self.stages - 1) + [1.0]


class Log:
    """Each batch as (who decodes, chunks, end); and what the requests got."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[tuple[str, int, int]], float]] = []
        self.busy_s = 0.0

    def run_done(self, run: Run, finished: list[Request]) -> None:
        chunks = [(str(chunk.request.request_id), chunk.tokens, chunk.context_tokens) for chunk in run.plan.chunks]
        decodes = "".join(str(request.request_id) for request in run.plan.decodes)
        self.batches.append((decodes, chunks, run.end_s))
        self.busy_s += run.end_s - run.start_s


class Stage:
    """A pipeline of equal stages, and requests that come when the test says."""

    def __init__(self, stages: int, **limits: Any) -> None:
        self.env = simpy.Environment()
        usual = {"num_blocks": 100, "block_size": 4, "max_num_seqs": 8, "max_num_batched_tokens": 16}
        self.scheduler = Pipelined(SchedulerLimits(**{**usual, **limits}), stages)
        self.log = Log()
        self.replica = PipelineReplica(self.env, self.scheduler, EqualStages(stages), self.log, list_decodes=True)

    def request(self, name: str, input_tokens: int, output_tokens: int, at_s: float = 0.0) -> Request:
        request = Request(name, input_tokens, output_tokens, arrival_s=at_s)
        Moment(self.env, at_s, lambda _: self.replica.submit(request))
        return request


def test_a_pipeline_of_two_stages_by_hand() -> None:
    """Stages of a second each; a batch holds 16 tokens.

        second  0    1    2    3    4    5    6    7    8
        stage 0 A0   A1B  .    A    B    A    B    .
        stage 1      A0   A1B  .    A    B    A    B

    A's prompt is two chunks, which follow each other through the stages; B's shares the second. Then the second batch
    is all there is: A and B decode together, and while they are in one stage, the other has nothing to do.
    """
    stage = Stage(2)
    a, b = stage.request("A", 24, 3), stage.request("B", 8, 3)
    stage.env.run()
    assert stage.log.batches == [
        ("", [("A", 16, 0)], 2.0),
        ("", [("A", 8, 16), ("B", 8, 0)], 3.0),
        ("AB", [], 5.0),
        ("AB", [], 7.0),
    ]
    assert (a.first_token_s, a.finish_s, b.first_token_s, b.finish_s) == (3.0, 7.0, 3.0, 7.0)
    assert stage.log.busy_s == 7.0


def test_prompts_in_different_batches_decode_in_turns_and_fill_both_stages() -> None:
    """Each prompt fills a batch: from then on one batch is in each stage, and a token comes out every second."""
    stage = Stage(2)
    a, b = stage.request("A", 16, 3), stage.request("B", 16, 3)
    stage.env.run()
    assert stage.log.batches == [
        ("", [("A", 16, 0)], 2.0),
        ("", [("B", 16, 0)], 3.0),
        ("A", [], 4.0),
        ("B", [], 5.0),
        ("A", [], 6.0),
        ("B", [], 7.0),
    ]
    assert (a.finish_s, b.finish_s) == (6.0, 7.0)


def test_who_comes_while_nothing_can_be_planned_is_seen_when_the_oldest_batch_ends() -> None:
    """The second stage's batch is all there is, and the engine waits for it; the newcomer joins its next batch."""
    stage = Stage(2)
    stage.request("A", 4, 3)
    late = stage.request("B", 4, 2, at_s=0.5)
    stage.env.run()
    assert late.scheduled_s == 2.0
    assert late.first_token_s == 4.0


def test_a_request_alone_goes_through_all_stages_for_each_token() -> None:
    for stages in (1, 2, 5):
        stage = Stage(stages)
        request = stage.request("A", 4, 10)
        stage.env.run()
        assert request.finish_s == 10.0 * stages


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_full_stages_end_a_batch_in_the_time_of_one_stage(stages: int) -> None:
    """As many prompts as stages, a batch each: the pipeline fills, and then no batch waits for another."""
    stage = Stage(stages)
    requests = [stage.request(name, 16, 50) for name in "ABCDEFGH"[:stages]]
    stage.env.run()
    assert max(request.finish_s for request in requests) == 50.0 * stages + stages - 1


def test_a_hang_up_in_flight_frees_its_blocks_when_the_next_batch_is_planned() -> None:
    stage = Stage(2)
    request = stage.request("A", 16, 100)
    other = stage.request("B", 16, 3)
    Moment(stage.env, 10.5, lambda _: stage.replica.abort("A"))
    stage.env.run()
    assert request.status is Status.ABORTED
    assert other.status is Status.FINISHED
    assert stage.replica.is_idle
    assert stage.scheduler.blocks.used_blocks == 0


@given(st.floats(0.0, 12.0), st.integers(1, 4), st.integers(6, 40))
@settings(max_examples=100, deadline=None)
def test_what_is_in_flight_when_a_machine_fails_was_not_done(at_s: float, stages: int, num_blocks: int) -> None:
    """The tokens that a request has when its replica fails are those of the batches that had ended."""
    stage = Stage(stages, num_blocks=num_blocks)
    requests = [stage.request(name, 5 * number + 1, 4) for number, name in enumerate("ABCD")]
    stage.env.run(until=at_s + 1e-6)
    ended: dict[str, int] = {}
    for decodes, chunks, _ in stage.log.batches:
        for name in decodes:
            ended[name] = ended.get(name, 0) + 1
        for name, tokens, context in chunks:
            known = next(request for request in requests if request.request_id == name).input_tokens
            ended[name] = ended.get(name, 0) + (tokens + context >= known + ended.get(name, 0))
    halted = stage.replica.halt()
    assert {request.request_id for request in halted} == {
        request.request_id for request in requests if request.status is not Status.FINISHED
    }
    for request in halted:
        assert request.produced_tokens == ended.get(str(request.request_id), 0)
    assert stage.scheduler.blocks.used_blocks == 0
    stage.env.run()
    assert len(stage.log.batches) == sum(1 for *_, end_s in stage.log.batches if end_s <= at_s + 1e-6)
