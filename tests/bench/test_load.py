"""When requests go out: rates, ramps, traces, limits; and several processes that do it together."""

from __future__ import annotations

import math
from itertools import pairwise
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.asking import HELLO, outcomes
from bench.raw_server import Piece, Received, chunked, raw_server, sse
from simserve.bench.backends import Ask, find_backend
from simserve.bench.load.counters import Counters, bin_of, quantile
from simserve.bench.load.driver import Load
from simserve.bench.load.run import run_jobs
from simserve.bench.load.schedule import Shape, make_schedule
from simserve.bench.load.worker import Job
from simserve.bench.measure.outcome import Outcome
from simserve.bench.self_test.server import Timing, serve_fixed_timing
from simserve.bench.wire.address import parse_address
from simserve.bench.wire.encode import encode_request
from simserve.errors import ConfigError, WorkloadError

ANSWER = chunked(*sse({"choices": [{"text": "a", "finish_reason": "stop"}]}, "[DONE]"))


def slow_answer(request: Received) -> list[Piece]:
    return [0.03, *ANSWER]


def most_at_once(done: list[Outcome]) -> int:
    changes = sorted([(one.sent_s, 1) for one in done] + [(one.end_s, -1) for one in done], key=lambda c: (c[0], c[1]))
    return int(max(np.cumsum([change for _, change in changes])))


class TestSchedule:
    @given(
        rate=st.floats(min_value=0.1, max_value=1000),
        count=st.integers(min_value=1, max_value=300),
        burstiness=st.sampled_from([0.25, 1.0, 4.0, math.inf]),
        seed=st.integers(min_value=0, max_value=99),
    )
    def test_a_steady_rate_is_met_exactly(self, rate: float, count: int, burstiness: float, seed: int) -> None:
        due_s = make_schedule(Shape(rate, burstiness), count, seed).due_s
        assert due_s[-1] == pytest.approx(count / rate)
        assert np.all(np.diff(due_s) >= 0)
        assert due_s[0] >= 0

    @pytest.mark.parametrize(("burstiness", "cv"), [(0.25, 2.0), (1.0, 1.0), (4.0, 0.5), (math.inf, 0.0)])
    def test_gaps_are_as_bursty_as_asked(self, burstiness: float, cv: float) -> None:
        gaps = np.diff(make_schedule(Shape(100.0, burstiness), 20_000, 1).due_s)
        assert gaps.std() / gaps.mean() == pytest.approx(cv, abs=0.06)

    def test_a_duration_ends_the_arrivals(self) -> None:
        due_s = make_schedule(Shape(50.0, duration_s=10.0), 7, 0).due_s
        assert 400 < len(due_s) < 600
        assert due_s[-1] < 10.0

    @pytest.mark.parametrize("strategy", ["linear", "exponential"])
    def test_a_ramp_says_when_it_reaches_each_rate(self, strategy: str) -> None:
        schedule = make_schedule(Shape(ramp=(strategy, 2, 6), burstiness=math.inf), 500, 0)  # type: ignore[arg-type]
        assert [change.rps for change in schedule.changes] == [2, 3, 4, 5, 6]
        gaps = np.diff(schedule.due_s)
        assert (gaps[0], gaps[-1]) == (pytest.approx(0.5, rel=0.01), pytest.approx(1 / 6, rel=0.01))

    def test_a_ramp_with_a_duration_reaches_its_end_by_then(self) -> None:
        schedule = make_schedule(Shape(ramp=("linear", 10, 50), burstiness=math.inf, duration_s=20.0), 3, 0)
        assert 19.0 < schedule.due_s[-1] < 20.0
        assert 1 / np.diff(schedule.due_s)[-1] == pytest.approx(50, rel=0.02)

    def test_a_trace_keeps_its_arrivals(self) -> None:
        arrivals = np.array([0.0, 1.0, 1.5, 9.0])
        schedule = make_schedule(Shape(keeps_arrivals=True, duration_s=5.0), 4, 0, arrivals)
        assert schedule.due_s.tolist() == [0.0, 1.0, 1.5]

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"max_concurrency": 0}, "--max-concurrency is 0"),
            ({"duration_s": 0.0, "max_concurrency": 1}, "--duration is 0 s"),
            ({"duration_s": 5.0}, "there is no end"),
            ({"stagger_s": 1.0, "request_rate": 5.0}, "closed loop"),
            ({"ramp": ("linear", 1, 5), "request_rate": 5.0}, "leave --request-rate out"),
            ({"ramp": ("linear", 9, 5)}, "a ramp goes up"),
        ],
    )
    def test_what_cannot_be_is_said(self, fields: dict[str, object], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            Shape(**fields)  # type: ignore[arg-type]

    def test_a_ramp_from_nothing_cannot_be(self) -> None:
        with pytest.raises(WorkloadError, match="0 requests per second"):
            make_schedule(Shape(ramp=("linear", 0, 5)), 10, 0)


class TestDriver:
    async def test_requests_wait_until_they_are_due(self) -> None:
        async with raw_server(lambda request: ANSWER) as server:
            done = await outcomes(server.url, "openai", [HELLO] * 3, {"due_s": [0.0, 0.05, 0.1]})
        assert [one.sent_s >= one.due_s for one in done] == [True] * 3
        assert [round(one.due_s - done[0].due_s, 6) for one in done] == [0.0, 0.05, 0.1]
        assert all(one.ready_s == one.due_s for one in done)

    async def test_the_limit_is_never_exceeded_and_waiting_is_seen(self) -> None:
        async with raw_server(slow_answer) as server:
            done = await outcomes(server.url, "openai", [HELLO] * 12, {"slots_s": [0.0] * 3})
        assert most_at_once(done) == 3
        first, later = done[:3], done[3:]
        assert all(one.ready_s == one.due_s for one in first)
        assert all(
            one.ready_s >= one.due_s + 0.03 for one in later
        )  # scheduled time is kept beside the time of sending
        ends = sorted(one.end_s for one in done)
        assert [one.ready_s for one in later] == ends[: len(later)]

    async def test_staggered_places_open_one_after_the_other(self) -> None:
        async with raw_server(slow_answer) as server:
            done = await outcomes(server.url, "openai", [HELLO] * 4, {"slots_s": [0.0, 0.05, 0.1, 0.15]})
        assert all(later.sent_s > earlier.sent_s for earlier, later in pairwise(done))
        assert done[1].ready_s - done[0].due_s >= 0.03  # the first answer's end, or its own place's opening

    async def test_a_closed_loop_repeats_its_requests_until_time_is_up(self) -> None:
        load = {"slots_s": [0.0] * 2, "stop_after_s": 0.2, "repeat": True}
        async with raw_server(slow_answer) as server:
            done = await outcomes(server.url, "openai", [HELLO] * 3, load)
        assert len(done) > 3
        assert [one.index for one in done] == list(range(len(done)))
        assert all(one.ready_s - done[0].due_s < 0.2 for one in done)
        assert len({request.headers["x-request-id"] for request in server.received}) == len(done)


class TestCounters:
    def test_rows_are_added_and_lags_are_the_worst(self) -> None:
        counters = Counters.make(get_context("spawn"), 2)
        histogram = [0] * 160
        histogram[bin_of(0.1)] = 5
        counters.write(0, (10, 2, 8, 1, 80, 0.001, 0.1, 1.0), histogram, histogram)
        counters.write(1, (20, 3, 17, 0, 90, 0.5, 0.0, 2.0), histogram, [0] * 160)
        now = counters.read()
        assert (now.sent, now.in_flight, now.done, now.failed, now.events) == (30, 5, 25, 1, 170)
        assert (now.lag_s, now.loop_lag_s, now.cpu_s) == (0.5, 0.1, 3.0)
        assert quantile(now.ttft, 0.5) == pytest.approx(0.1, rel=0.12)

    @given(seconds=st.floats(min_value=2e-4, max_value=5000))
    def test_a_bin_is_12_percent_wide(self, seconds: float) -> None:
        histogram = np.zeros(160)
        histogram[bin_of(seconds)] = 1
        assert quantile(histogram, 0.99) == pytest.approx(seconds, rel=0.125)

    def test_nothing_counted_is_nothing_known(self) -> None:
        assert math.isnan(quantile(np.zeros(160), 0.5))


def test_processes_share_the_load_against_a_server_of_known_timing() -> None:
    """Three answers of 20 ms + 4 x 5 ms in each of two processes: no latency is below the truth."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    timing = Timing(ttft_s=0.02, itl_s=0.005, tokens=5)
    child = context.Process(target=serve_fixed_timing, args=(timing, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        address, backend = parse_address(f"http://127.0.0.1:{ours.recv()}"), find_backend("openai-chat")
        body = backend.encode(Ask(HELLO, "m"))
        seen: list[int] = []
        jobs = []
        for row in range(2):
            requests = [encode_request(index, address, backend.path, {}, body) for index in range(row, 6, 2)]
            load = Load(requests, [0.0] * 3, slots_s=[0.0], id_prefix="t-", index_step=2)
            jobs.append(Job(address, "openai-chat", load, connections=1))
        result = run_jobs(jobs, lambda progress, elapsed_s: seen.append(progress.done))
    finally:
        ours.close()
        child.join(timeout=10)
    assert [one.index for one in result.outcomes] == list(range(6))
    assert all(one.ok and one.output_tokens == 5 for one in result.outcomes)
    assert all(one.ttft_s >= 0.02 and one.e2el_s >= timing.e2el_s for one in result.outcomes)
    assert most_at_once(result.outcomes) <= 2
    assert not result.was_interrupted
    assert len(result.health) == 2
    assert seen == sorted(seen)
    assert seen[-1] <= 6
