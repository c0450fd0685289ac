"""A replica's time: who waits for which step, and when tokens come out. Every step here takes one second."""

from __future__ import annotations

from typing import Any

import pytest
import simpy

from simserve.errors import RequestError
from simserve.scheduling import POLICIES, Request, SchedulerLimits, Status
from simserve.simulation import Replica, Run
from simserve.simulation.arrivals import Moment


class OneSecondTimer:
    def step_s(self, decodes: int, context: int, chunks: list[tuple[int, int]], sampled: int) -> float:
        return 1.0

    def decode_steps_s(self, decodes: int, context: int, steps: int) -> list[float]:
        return [1.0] * steps


class Log:
    """Each run as (start, end, steps in it)."""

    def __init__(self) -> None:
        self.runs: list[tuple[float, float, int]] = []
        self.finished: list[Request] = []

    def run_done(self, run: Run, finished: list[Request]) -> None:
        self.runs.append((run.start_s, run.end_s, run.plan.repeat))
        self.finished += finished


class Stage:
    """One replica, and requests that come and go when the test says."""

    def __init__(self, async_scheduling: bool, **limits: Any) -> None:
        self.env = simpy.Environment()
        self.scheduler = POLICIES["vllm-v1"](SchedulerLimits(**{"num_blocks": 100, **limits}))
        self.log = Log()
        timer: Any = OneSecondTimer()
        self.replica = Replica(self.env, self.scheduler, timer, self.log, async_scheduling=async_scheduling)

    def at(self, time_s: float, what: Any) -> None:
        Moment(self.env, time_s, lambda _: what())

    def request(self, name: str, at_s: float, output_tokens: int, input_tokens: int = 10) -> Request:
        request = Request(name, input_tokens, output_tokens, arrival_s=at_s)
        self.at(at_s, lambda: self.replica.submit(request))
        return request


def test_a_lone_request_starts_at_once_and_gets_a_token_per_step() -> None:
    stage = Stage(async_scheduling=True)
    request = stage.request("a", at_s=5.0, output_tokens=4)
    stage.env.run()
    assert (request.scheduled_s, request.first_token_s, request.finish_s) == (5.0, 6.0, 9.0)


def test_quiet_decode_steps_are_one_run() -> None:
    stage = Stage(async_scheduling=True)
    stage.request("a", at_s=0.0, output_tokens=101)
    stage.env.run()
    assert stage.log.runs == [(0.0, 1.0, 1), (1.0, 101.0, 100)]


def test_an_arrival_during_a_step_waits_for_its_end() -> None:
    stage = Stage(async_scheduling=False)
    stage.request("a", at_s=0.0, output_tokens=100)
    late = stage.request("b", at_s=10.5, output_tokens=2)
    stage.env.run()
    assert late.scheduled_s == 11.0
    assert late.first_token_s == 12.0


def test_with_asynchronous_scheduling_it_waits_for_the_next_step_too() -> None:
    """vLLM plans a step when the one before it starts: the step after the running one is settled already."""
    stage = Stage(async_scheduling=True)
    stage.request("a", at_s=0.0, output_tokens=100)
    late = stage.request("b", at_s=10.5, output_tokens=2)
    stage.env.run()
    assert late.scheduled_s == 12.0
    assert late.first_token_s == 13.0


def test_who_comes_at_the_very_end_of_a_step_is_seen() -> None:
    stage = Stage(async_scheduling=False)
    stage.request("a", at_s=0.0, output_tokens=100)
    late = stage.request("b", at_s=10.0, output_tokens=2)
    stage.env.run()
    assert late.scheduled_s == 10.0


def test_requests_that_come_together_share_the_first_step() -> None:
    stage = Stage(async_scheduling=True)
    together = [stage.request(name, at_s=1.0, output_tokens=3) for name in "abc"]
    stage.env.run()
    assert {request.first_token_s for request in together} == {2.0}


def test_the_engine_sleeps_between_requests_and_wakes_for_the_next() -> None:
    stage = Stage(async_scheduling=True)
    stage.request("a", at_s=0.0, output_tokens=1)
    second = stage.request("b", at_s=3600.0, output_tokens=1)
    stage.env.run()
    assert second.first_token_s == 3601.0
    assert stage.log.runs == [(0.0, 1.0, 1), (3600.0, 3601.0, 1)]
    assert stage.replica.is_idle


@pytest.mark.parametrize("async_scheduling", [False, True])
def test_a_hang_up_in_the_middle_of_a_long_run_frees_its_blocks_within_a_step(async_scheduling: bool) -> None:
    stage = Stage(async_scheduling)
    request = stage.request("a", at_s=0.0, output_tokens=1000)
    stage.at(20.5, lambda: stage.replica.abort("a"))
    stage.env.run(until=22.0 + 1e-9)
    assert request.status is Status.ABORTED
    assert stage.scheduler.blocks.used_blocks == 0


def test_a_hang_up_while_the_engine_is_idle_changes_nothing() -> None:
    stage = Stage(async_scheduling=True)
    stage.request("a", at_s=0.0, output_tokens=2)
    stage.at(50.0, lambda: stage.replica.abort("a"))
    stage.env.run()
    assert [request.status for request in stage.log.finished] == [Status.FINISHED]


def test_a_prompt_that_can_never_fit_is_refused_and_the_others_go_on() -> None:
    stage = Stage(async_scheduling=True, num_blocks=11)
    other = stage.request("a", at_s=0.0, output_tokens=5)
    stage.env.run(until=2.0)
    with pytest.raises(RequestError, match="200 prompt tokens"):
        stage.replica.submit(Request("big", 200, 5))
    stage.env.run()
    assert other.status is Status.FINISHED
