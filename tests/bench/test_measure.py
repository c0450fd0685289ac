"""Figures by their definitions, steady windows, and whether a run can be believed."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.made import START_S, failed, outcome, run_of
from simserve.bench.load.health import Health
from simserve.bench.load.schedule import Shape
from simserve.bench.measure.failures import group_failures
from simserve.bench.measure.figures import figures_of, most_at_once, parse_slos, tokens_per_chunk
from simserve.bench.measure.outcome import Failure, Outcome
from simserve.bench.measure.speculative import parse_counters, speculation_between
from simserve.bench.measure.steady import steady_state
from simserve.errors import ConfigError

LOADED = Failure("HTTP 429 Too Many Requests", "slow down", 429, 2.0)

requests = st.lists(
    st.tuples(
        st.floats(min_value=0, max_value=50),
        st.floats(min_value=0.001, max_value=5),
        st.floats(min_value=0, max_value=0.5),
        st.integers(min_value=1, max_value=20),
    ),
    min_size=1,
    max_size=20,
)


class TestFigures:
    def test_an_example_by_hand(self) -> None:
        """Two answers of 5 tokens, TTFT 100 and 300 ms, then a token every 20 and 40 ms; a third request fails."""
        first, second = outcome(0, 0.0, 0.1, 0.02), outcome(1, 1.0, 0.3, 0.04)
        figures = figures_of([first, second, failed(2, 1.5)], START_S, is_closed_loop=False)
        assert (figures.completed, figures.failed) == (2, 1)
        assert figures.duration_s == pytest.approx(1.6)  # the failed one was the last to end
        assert (figures.total_input_tokens, figures.total_output_tokens) == (20, 10)
        assert figures.request_throughput == pytest.approx(2 / 1.6)
        assert figures.output_throughput == pytest.approx(10 / 1.6)
        assert figures.total_token_throughput == pytest.approx(30 / 1.6)
        assert figures.latency("ttft").mean == pytest.approx(0.2)
        assert figures.latency("tpot").mean == pytest.approx(0.03)
        assert figures.latency("itl", (50.0,)).count == 8
        assert figures.latency("e2el").mean == pytest.approx((0.18 + 0.46) / 2)
        assert figures.request_goodput is None

    @given(made=requests)
    def test_the_formulas_hold_for_any_run(self, made: list[tuple[float, float, float, int]]) -> None:
        outcomes = [outcome(at, *fields) for at, fields in enumerate(made)]
        figures = figures_of(outcomes, START_S, is_closed_loop=False)
        ends = [one.end_s for one in outcomes]
        assert figures.duration_s == max(ends) - START_S
        assert figures.values_s["ttft"] == pytest.approx([fields[1] for fields in made], abs=1e-9)
        expected = [fields[2] for fields in made if fields[3] > 1]
        assert figures.values_s["tpot"] == pytest.approx(expected, abs=1e-9)
        assert len(figures.values_s["itl"]) == sum(fields[3] - 1 for fields in made)
        assert figures.max_output_tokens_per_s <= figures.total_output_tokens

    @given(made=requests)
    def test_concurrency_is_swept_not_counted_in_buckets(self, made: list[tuple[float, float, float, int]]) -> None:
        outcomes = [outcome(at, *fields) for at, fields in enumerate(made)]
        brute = max(sum(one.sent_s <= at.sent_s < one.end_s for one in outcomes) for at in outcomes)
        assert most_at_once(outcomes) == brute

    def test_one_request_after_another_is_one_at_a_time(self) -> None:
        """The case in which buckets of a second say 2."""
        assert most_at_once([outcome(at, sent_s=at / 8, ttft_s=1 / 8, tokens=1) for at in range(10)]) == 1

    def test_waiting_shows_from_the_schedule_and_not_from_the_send(self) -> None:
        """Coordinated omission: a request that waited a second for its place was not fast."""
        waited = outcome(0, sent_s=2.0, due_s=1.0, ready_s=1.9, ttft_s=0.1)
        by_rate = figures_of([waited], START_S, is_closed_loop=False)
        assert by_rate.latency("ttft").mean == pytest.approx(0.1)
        assert by_rate.latency("ttft_scheduled").mean == pytest.approx(1.1)
        assert by_rate.latency("client_queue_time").mean == pytest.approx(1.0)
        assert by_rate.latency("e2el_including_client_queue").mean == pytest.approx(1.18)
        assert by_rate.latency("lag").mean == pytest.approx(0.1)
        closed = figures_of([waited], START_S, is_closed_loop=True)
        assert closed.latency("ttft_scheduled").mean == pytest.approx(0.2)  # from when its place was free

    def test_goodput_counts_requests_that_met_every_slo(self) -> None:
        outcomes = [
            outcome(0, ttft_s=0.1, itl_s=0.02), outcome(1, ttft_s=0.3, itl_s=0.02), outcome(2, ttft_s=0.1, itl_s=0.2),
            outcome(3, ttft_s=0.1, tokens=1), failed(4),
        ]  # fmt: skip
        slos = parse_slos(["ttft:200", "tpot:50", "e2el:5000"])
        figures = figures_of(outcomes, START_S, is_closed_loop=True, slos_s=slos)
        assert figures.good == 2  # a single token has no TPOT to miss
        assert figures.slo_share == pytest.approx(2 / 5)

    @pytest.mark.parametrize("word", ["ttft", "itl:5", "ttft:x", "ttft:-1", "ttft:nan", ":5"])
    def test_what_is_no_slo_is_refused(self, word: str) -> None:
        with pytest.raises(ConfigError, match="--goodput takes NAME:MILLISECONDS"):
            parse_slos([word])

    def test_chunks_of_several_tokens(self) -> None:
        """Three chunks that complete 2, 3 and 6 tokens: ITL is between chunks, the token ITL shares gaps out."""
        one = outcome(0, itl_s=0.06, tokens=3, output_tokens=6, tokens_at=array("l", [2, 3, 6]))
        assert tokens_per_chunk(one).tolist() == [2, 1, 3]
        figures = figures_of([one], START_S, is_closed_loop=True)
        assert figures.values_s["itl"] == pytest.approx([0.06, 0.06])
        assert figures.values_s["token_itl"] == pytest.approx([0.06, 0.02, 0.02, 0.02])
        assert figures.latency("tpot").mean == pytest.approx(0.12 / 5)
        assert figures.max_output_tokens_per_s == pytest.approx(6)
        unknown = outcome(0, itl_s=0.06, tokens=3, output_tokens=6)
        assert tokens_per_chunk(unknown).tolist() == [2, 2, 2]

    def test_reads_that_bring_several_chunks_are_counted(self) -> None:
        one = outcome(0, tokens=4)
        one = outcome(0, tokens=4, token_times_s=array("d", [one.token_times_s[0]] * 3 + [one.token_times_s[3]]))
        assert figures_of([one], START_S, is_closed_loop=True).coalesced == 0.5

    def test_answers_in_one_piece_have_no_first_token(self) -> None:
        one = outcome(0, tokens=0, output_tokens=7)
        figures = figures_of([one], START_S, is_closed_loop=True)
        assert figures.latency("ttft").count == figures.latency("tpot").count == 0
        assert figures.latency("e2el").count == 1
        assert figures.total_output_tokens == 7


class TestSteadyState:
    def test_a_closed_loop_is_steady_while_its_places_are_full(self) -> None:
        """Four places: all full from 0.3 s, when the last is filled, until 2.0 s, when the first stays empty."""
        outcomes = [
            outcome(at, sent_s=sent, ttft_s=end - sent, tokens=1)
            for at, (sent, end) in enumerate(
                [(0, 1), (0.1, 1.1), (0.2, 1.2), (0.3, 1.3), (1, 2), (1.1, 2.1), (1.2, 2.2), (1.3, 2.3)]
            )
        ]
        steady = steady_state(outcomes, START_S, 4, is_closed_loop=True)
        assert steady is not None
        assert (steady.start_s, steady.end_s) == (pytest.approx(0.3), pytest.approx(2.0))
        assert steady.request_throughput == pytest.approx(4.0)  # four at a time, a second each

    def test_a_rate_is_steady_from_the_first_arrival_to_the_last(self) -> None:
        outcomes = [outcome(at, sent_s=at / 10, ttft_s=0.5, tokens=1) for at in range(101)]
        steady = steady_state(outcomes, START_S, None, is_closed_loop=False)
        assert steady is not None
        assert (steady.start_s, steady.end_s, steady.requests) == (pytest.approx(0), pytest.approx(10), 100)

    def test_a_loop_that_was_never_full_has_none(self) -> None:
        assert steady_state([outcome(0)], START_S, 4, is_closed_loop=True) is None
        assert steady_state([outcome(0)], START_S, None, is_closed_loop=False) is None


def steady_run(**fields: float) -> list[Outcome]:
    """200 requests at 20 per second, each sent just when due."""
    return [outcome(at, sent_s=at / 20, **fields) for at in range(200)]  # type: ignore[arg-type]


class TestVerdict:
    RATE = Shape(request_rate=20.0)

    def test_an_ordinary_run_is_valid(self) -> None:
        assert run_of(steady_run(), self.RATE).verdict.word == "VALID"

    def test_a_late_client_is_the_limit(self) -> None:
        late = [outcome(at, sent_s=at / 20 + 0.03, ready_s=at / 20) for at in range(200)]
        verdict = run_of(late, self.RATE).verdict
        assert verdict.word == "CLIENT-LIMITED"
        assert "30.0 ms late (p99)" in verdict.reason

    def test_lateness_that_is_nothing_beside_the_latency_is_no_limit(self) -> None:
        late = [outcome(at, sent_s=at / 20 + 0.03, ready_s=at / 20, ttft_s=2.0) for at in range(200)]
        assert run_of(late, self.RATE).verdict.word == "VALID"

    @pytest.mark.parametrize(
        ("health", "said"),
        [
            (Health(9.9, 10.0, [0.0]), "99% of a core"),
            (Health(1.0, 10.0, [0.2] * 9), "stood still for 200 ms"),
        ],
    )
    def test_a_busy_or_halting_client_is_the_limit(self, health: Health, said: str) -> None:
        verdict = run_of(steady_run(), self.RATE, health=health).verdict
        assert verdict.word == "CLIENT-LIMITED"
        assert said in verdict.reason

    def test_a_backlog_that_grows_is_saturation(self) -> None:
        """20 per second arrive and 10 per second are done."""
        outcomes = [outcome(at, sent_s=at / 20, ttft_s=0.1 + at / 20, tokens=1) for at in range(200)]
        verdict = run_of(outcomes, self.RATE).verdict
        assert verdict.word == "SATURATED"
        assert "10" in verdict.reason

    def test_a_long_but_constant_backlog_is_none(self) -> None:
        assert run_of(steady_run(ttft_s=3.0), self.RATE).verdict.word == "VALID"

    def test_declined_requests_are_saturation_and_broken_ones_are_not(self) -> None:
        declined = [failed(at, at / 20, LOADED) if at % 10 == 0 else outcome(at, at / 20) for at in range(200)]
        broken = [failed(at, at / 20) if at % 10 == 0 else outcome(at, at / 20) for at in range(200)]
        assert run_of(declined, self.RATE).verdict.word == "SATURATED"
        assert run_of(broken, self.RATE).verdict.word == "UNSTABLE"

    def test_drift_few_answers_and_none(self) -> None:
        drifting = [outcome(at, at / 20, ttft_s=0.1 if at < 100 else 0.15) for at in range(200)]
        verdict = run_of(drifting, self.RATE).verdict
        assert verdict.word == "UNSTABLE"
        assert "100.0 to 150.0 ms" in verdict.reason
        assert "only 5 answers" in run_of(steady_run()[:5], self.RATE).verdict.reason
        assert "no request succeeded" in run_of([failed()], self.RATE).verdict.reason

    def test_a_ramp_may_drift(self) -> None:
        drifting = [outcome(at, at / 20, ttft_s=0.1 if at < 100 else 0.15) for at in range(200)]
        assert run_of(drifting, Shape(ramp=("linear", 10, 30))).verdict.word == "VALID"


class TestFailures:
    def test_like_with_like_the_most_frequent_first(self) -> None:
        outcomes = [outcome(0), failed(1), failed(2, failure=LOADED), failed(3, failure=LOADED)]
        groups = group_failures(outcomes, "openai-chat", "/v1/chat/completions")
        assert [(group.kind, group.count) for group in groups] == [
            ("HTTP 429 Too Many Requests", 2), ("HTTP 500 Internal Server Error", 1),
        ]  # fmt: skip
        sentence = groups[0].sentence(4)
        assert sentence == (
            "2 of 4 requests: HTTP 429 Too Many Requests (slow down); lower --request-rate or --max-concurrency"
            " (the server asks to come back after 2 s)"
        )

    @pytest.mark.parametrize(
        ("failure", "advice"),
        [
            (Failure("HTTP 404 Not Found", "", 404), "tgi servers listen at /generate_stream"),
            (Failure("HTTP 401 Unauthorized", "", 401), "set OPENAI_API_KEY"),
            (Failure("connection refused"), "--base-url"),
            (Failure("malformed answer", "x"), "--backend"),
            (Failure("HTTP 599", "", 599), "the server's log"),
        ],
    )
    def test_what_to_do(self, failure: Failure, advice: str) -> None:
        (group,) = group_failures([failed(failure=failure)], "tgi", "/generate_stream")
        assert advice in group.advice


METRICS = """
# HELP vllm:spec_decode_num_drafts_total Number of drafts.
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 100.0
vllm:spec_decode_num_drafts_total{engine="1",model_name="m"} 50.0
vllm:spec_decode_num_drafts_created{engine="0"} 1.7e9
vllm:spec_decode_num_draft_tokens_total{engine="0"} 450.0
vllm:spec_decode_num_accepted_tokens_total{engine="0"} 300.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} 140.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="1"} 100.0
vllm:num_requests_running 5
"""


def test_speculative_decoding_is_the_difference_of_two_readings() -> None:
    before, after = parse_counters(METRICS.replace("100.0", "40.0").replace("300.0", "100.0")), parse_counters(METRICS)
    found = speculation_between({}, after)
    assert found is not None
    assert (found.drafts, found.draft_tokens, found.accepted_tokens) == (150, 450, 300)
    assert (found.acceptance_rate, found.acceptance_length) == (pytest.approx(66.67, abs=0.01), 3.0)
    assert found.rates_at == [pytest.approx(140 / 150), pytest.approx(100 / 150)]
    later = speculation_between(before, after)
    assert later is not None
    assert (later.drafts, later.accepted_tokens) == (60, 200)
    assert speculation_between(after, after) is None
    assert not np.isnan(found.acceptance_rate)
    assert math.isfinite(found.acceptance_length)
