"""The processes before a replica: who waits for whom, and what clients see of it. Most steps here take a second."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.hardware import load_hardware
from simserve.latency.front_end import VLLM_V1, FrontEndCosts, front_end_named
from simserve.metrics.records import Records
from simserve.models import load_model
from simserve.scheduling import POLICIES, Request, SchedulerLimits, Status
from simserve.simulation import ClosedLoop, Replica, Run, prepare, simulate
from simserve.simulation.arrivals import Moment
from simserve.simulation.front_end import FrontEnd, sent_tokens
from simserve.workload import LognormalLength, SteadyArrivals, Workload, synthetic_workload

MODEL, HARDWARE = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("H100")


class GrowingTimer:
    """A second, and a little more for each decode and each token of context."""

    def step_s(self, decodes: int, context: int, chunks: list[tuple[int, int]], sampled: int) -> float:
        return 1.0 + 0.125 * decodes + 2**-10 * context

    def decode_steps_s(self, decodes: int, context: int, steps: int) -> list[float]:
        return [self.step_s(decodes, context + i * decodes, [], decodes) for i in range(steps)]


class OneSecondTimer(GrowingTimer):
    def step_s(self, decodes: int, context: int, chunks: list[tuple[int, int]], sampled: int) -> float:
        return 1.0


class Stage:
    """A front end and its replica, the requests that come when the test says, and a log of both."""

    def __init__(self, costs: FrontEndCosts, processes: int = 1, timer: GrowingTimer | None = None) -> None:
        self.env = simpy.Environment()
        scheduler = POLICIES["vllm-v1"](SchedulerLimits(num_blocks=1000))
        self.front_end = FrontEnd(self.env, costs, processes, self)
        engine_timer: Any = timer or OneSecondTimer()
        self.replica = Replica(self.env, scheduler, engine_timer, self.front_end, async_scheduling=True)
        self.front_end.connect(self.replica, self._admit)
        self.ready_s: dict[Any, float] = {}
        self.steps: list[tuple[float, int, float, float]] = []
        """Of each step: its end, its tokens, when they were sent after the step before, and how long it took."""
        self.sent: list[tuple[float, int, list[Request]]] = []
        """Of each run: when its last tokens were sent, how many steps there were up to then, who finished."""

    def request(self, name: Any, at_s: float, output_tokens: int, input_tokens: int = 10) -> Request:
        request = Request(name, input_tokens, output_tokens, arrival_s=at_s)
        Moment(self.env, at_s, lambda _: self.front_end.submit(request))
        return request

    def run_done(self, run: Run, finished: list[Request]) -> None:
        gaps = run.durations_s if run.gaps_s is None else run.gaps_s
        for end_s, gap_s, duration_s in zip(run.ends_s, gaps, run.durations_s, strict=True):
            self.steps.append((float(end_s), sent_tokens(run.plan), float(gap_s), float(duration_s)))
        self.sent.append((run.sent_s, len(self.steps), finished))

    def _admit(self, request: Request) -> None:
        self.ready_s[request.request_id] = self.env.now
        self.replica.submit(request)


def test_a_request_is_read_and_tokenised_before_the_engine_has_it() -> None:
    stage = Stage(FrontEndCosts(request_s=0.5, prompt_token_s=0.01, output_token_s=0.25))
    request = stage.request("a", at_s=5.0, output_tokens=3)
    stage.env.run()
    assert (request.arrival_s, request.scheduled_s) == (5.0, 5.6)
    assert (request.first_token_s, request.finish_s) == pytest.approx((6.85, 8.85)), "a second a step, then a quarter"
    assert stage.front_end.busy_s == pytest.approx(0.6 + 3 * 0.25)


def test_requests_queue_for_one_process_and_several_share_them() -> None:
    ready = {}
    for processes in (1, 4):
        stage = Stage(FrontEndCosts(1.0, 0.0, 0.0), processes)
        for name in range(4):
            stage.request(name, at_s=0.0, output_tokens=1)
        stage.env.run()
        ready[processes] = list(stage.ready_s.values())
    assert ready[1] == [1.0, 2.0, 3.0, 4.0]
    assert ready[4] == [1.0, 1.25, 1.5, 1.75], "as fast as four, each request still a second"


def test_tokens_on_their_way_out_keep_a_request_waiting_unless_another_process_sends_them() -> None:
    for own, ready_s in ((False, 13.0), (True, 12.5)):
        stage = Stage(FrontEndCosts(0.25, 0.0, 0.5, own_output_process=own))
        stage.request("a", at_s=0.75, output_tokens=100)
        stage.request("b", at_s=12.25, output_tokens=1)
        stage.env.run()
        assert stage.ready_s == {"a": 1.0, "b": ready_s if own else 12.75}, "a step ends at 12.0; sent until 12.5"


def test_the_engine_does_not_wait_for_a_slow_front_end_but_clients_do() -> None:
    stage = Stage(FrontEndCosts(0.0, 0.0, 3.0))
    request = stage.request("a", at_s=0.0, output_tokens=101)
    stage.env.run()
    assert stage.steps[-1][0] == 101.0
    assert (request.first_token_s, request.finish_s) == (4.0, 1.0 + 101 * 3.0)
    assert {gap_s for _, _, gap_s, _ in stage.steps[1:]} == {3.0}


costs = st.sampled_from((0.0, 0.03125, 0.25, 1.5))
arrivals = st.lists(
    st.tuples(st.floats(0, 60, width=16), st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=12
)


@settings(max_examples=300, deadline=None)
@given(arrivals, costs, costs, costs, st.booleans(), st.integers(1, 3))
def test_equals_a_queue_that_looks_at_every_step(requests, request_s, prompt_s, output_s, own, processes) -> None:
    stage = Stage(FrontEndCosts(request_s, prompt_s, output_s, own), processes, GrowingTimer())
    sent = [stage.request(i, at_s, out, tokens) for i, (at_s, tokens, out) in enumerate(requests)]
    stage.env.run()

    def work_s(request: Request) -> float:
        return request_s + prompt_s * request.input_tokens

    coming = sorted((request.arrival_s, 0, request.request_id) for request in sent)
    leaving = [(end_s, 1, index) for index, (end_s, *_) in enumerate(stage.steps)]
    free_in = free_out = 0.0
    ready_s, out_s = {}, []
    for time_s, kind, which in sorted([*coming, *leaving]):
        if kind == 0:
            begin_s = max(time_s, free_in)
            free_in = begin_s + work_s(sent[which]) / processes
            ready_s[which] = begin_s + work_s(sent[which])
            free_out = free_out if own else free_in
        else:
            free_out = max(time_s, free_out) + output_s * stage.steps[which][1] / (1 if own else processes)
            out_s.append(free_out)
            free_in = free_in if own else free_out

    assert stage.ready_s == pytest.approx(ready_s)
    for seen_s, steps, finished in stage.sent:
        assert seen_s == pytest.approx(out_s[steps - 1])
        assert all(request.finish_s == seen_s for request in finished)
    for step in range(1, len(stage.steps)):
        end_s, _, gap_s, duration_s = stage.steps[step]
        if end_s - duration_s == pytest.approx(stage.steps[step - 1][0]):
            assert gap_s == pytest.approx(out_s[step] - out_s[step - 1], abs=1e-9)


BURSTY = synthetic_workload(200, SteadyArrivals(20, 0.3), LognormalLength(300, 1), LognormalLength(40, 1), seed=1)


def served(workload: Any = BURSTY, **options: Any) -> Records:
    return simulate(workload, MODEL, HARDWARE, EngineOptions(**options)).records


def test_a_front_end_that_costs_nothing_changes_nothing() -> None:
    without, free = served(), served(front_end="0:0:0")
    assert free.first_token_s.tobytes() == without.first_token_s.tobytes()
    assert free.finish_s.tobytes() == without.finish_s.tobytes()
    assert free.gaps.gap_s.tobytes() == without.gaps.gap_s.tobytes()


@pytest.mark.parametrize("policy", ["vllm-v1", "vllm-v0", "sglang", "static"])
@pytest.mark.parametrize("front_end", ["vllm-v1", "sglang", "1:10:3000"])
def test_gaps_between_tokens_add_up_to_what_requests_took(policy: str, front_end: str) -> None:
    """Preempted, stalled or kept waiting: from a request's first token to its last there are its gaps and no other."""
    options = {"num_gpu_blocks": 600} if policy != "static" else {"max_num_batched_tokens": 2048, "max_model_len": 2048}
    records = served(policy=policy, front_end=front_end, **options)
    served_s = np.nansum(records.finish_s - records.first_token_s)
    assert np.dot(records.gaps.gap_s, records.gaps.count) == pytest.approx(served_s, rel=1e-9)


def test_short_requests_fill_the_front_end_before_the_device() -> None:
    """A thousand at once, a prompt and an answer of eight tokens: 4.4 ms each in one process."""
    burst = Workload("burst", np.zeros(1000), np.full(1000, 8), np.full(1000, 8))
    each_s = VLLM_V1.work_s(1, 8, 8)
    alone, one, four = (
        simulate(burst, MODEL, HARDWARE, EngineOptions(**options))
        for options in ({}, {"front_end": "vllm-v1"}, {"front_end": "vllm-v1", "api_server_count": 4})
    )
    assert alone.totals.duration_s < 0.2 * one.totals.duration_s
    assert one.totals.duration_s == pytest.approx(1000 * each_s, rel=0.02)
    assert four.totals.duration_s == pytest.approx(250 * each_s, rel=0.05)
    assert one.totals.front_end_busy_s == pytest.approx(1000 * each_s)
    assert (alone.description.front_end, alone.description.api_server_count) == ("none", 0)


def test_users_who_wait_for_their_answers_wait_for_the_front_end_too() -> None:
    loop = synthetic_workload(100, float("inf"), 8, 8, seed=0)
    fast, slow = (served(ClosedLoop(loop, users=4), front_end=name) for name in ("none", "100:0:0"))
    assert fast.finish_s.max() < 2.0
    assert slow.finish_s.max() > 100 * 0.1
    assert np.all(np.diff(slow.arrival_s[4:]) < 0.5), "nobody is sent before somebody was answered, and all go on"


def test_a_prompt_that_cannot_fit_is_refused_after_it_was_tokenised() -> None:
    workload = Workload("any", np.zeros(3), np.array([10, 900, 10]), np.array([5, 5, 5]))
    result = simulate(workload, MODEL, HARDWARE, EngineOptions(max_model_len=500, front_end="vllm-v1"))
    assert result.records.status.tolist() == [0, 2, 0]
    assert result.totals.front_end_busy_s == pytest.approx(VLLM_V1.work_s(3, 920, 10))


def test_a_hang_up_before_the_engine_has_the_request() -> None:
    stage = Stage(FrontEndCosts(1.0, 0.0, 0.0))
    gone, other = stage.request("a", at_s=0.0, output_tokens=5), stage.request("b", at_s=0.0, output_tokens=5)
    Moment(stage.env, 0.5, lambda _: stage.front_end.abort("a"))
    Moment(stage.env, 4.5, lambda _: stage.front_end.abort("b"))
    stage.env.run(until=0.75)
    assert stage.front_end.ingesting_requests == 1
    stage.env.run()
    assert stage.ready_s == {"b": 2.0}
    assert gone.status is Status.WAITING
    assert other.status is Status.ABORTED


def test_the_costs_of_vllm_give_the_rates_of_two_published_runs_with_full_processes() -> None:
    """One process for 221 and 201 tokens a request: 76.5 requests/s; four for 40 and 32: 740."""
    assert 1 / VLLM_V1.work_s(1, 221, 201) == pytest.approx(76.5, rel=0.05)
    assert 4 / VLLM_V1.work_s(1, 40, 32) == pytest.approx(740, rel=0.05)


def test_costs_of_ones_own() -> None:
    assert front_end_named("2.5:1:30") == FrontEndCosts(2.5e-3, 1e-6, pytest.approx(30e-6))
    assert front_end_named("none") is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"front_end": "nginx"}, "--front-end nginx is not known; choose one of none, vllm-v1, sglang, or give ms"),
        ({"front_end": "1:2"}, "--front-end 1:2 is not known"),
        ({"front_end": "1:2:-3"}, "--front-end 1:2:-3 holds a cost that is not a number of at least 0"),
        ({"front_end": "nan:0:0"}, "--front-end nan:0:0 holds a cost"),
        ({"api_server_count": 2}, "--api-server-count needs a front end whose processes it counts"),
        ({"front_end": "sglang", "api_server_count": 0}, "--api-server-count must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_honoured_is_told_in_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        prepare(MODEL, HARDWARE, EngineOptions(**options))
