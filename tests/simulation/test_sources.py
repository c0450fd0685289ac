"""Sources: users who wait for answers, and conversations that find their own past in the prefix cache."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.errors import WorkloadError
from simserve.hardware import load_hardware
from simserve.metrics.records import FINISHED, REJECTED, Records
from simserve.models import load_model
from simserve.simulation import ClosedLoop, Conversations, Source, simulate
from simserve.workload import Sessions, ThinkTime, UniformLength, Workload, draw_sessions, synthetic_workload

MODEL, HARDWARE = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100")


def run(source: Source | Workload, **options: object) -> Records:
    return simulate(source, MODEL, HARDWARE, EngineOptions(**options)).records


def most_in_flight(records: Records) -> int:
    """A request that is sent the instant another ends does not overlap it."""
    times = np.concatenate([records.finish_s, records.arrival_s])
    changes = np.repeat([-1, 1], len(records))
    return int(np.cumsum(changes[np.lexsort((changes, times))]).max())


def requests(count: int, rate: float = math.inf, seed: int = 0) -> Workload:
    return synthetic_workload(count, rate, UniformLength(1, 400), UniformLength(1, 60), seed)


def talks(seed: int = 0, **changes: object) -> Sessions:
    arguments = {
        "num_sessions": 6, "session_rate": 2.0, "turns": UniformLength(1, 5), "input_len": UniformLength(1, 200),
        "output_len": UniformLength(1, 60), "think_time": ThinkTime(0.5, 1), "seed": seed, "system_tokens": 100,
    }  # fmt: skip
    return draw_sessions(**(arguments | changes))


class TestClosedLoop:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(1, 12), st.integers(1, 60), st.sampled_from([0.0, 0.3]), st.integers(0, 99))
    def test_never_more_in_flight_than_users_and_all_are_served(
        self, users: int, count: int, think_s: float, seed: int
    ) -> None:
        workload = requests(count, seed=seed)
        records = run(ClosedLoop(workload, users, think_s))
        assert most_in_flight(records) <= users
        assert np.all(records.status == FINISHED)
        assert np.array_equal(records.input_tokens, workload.input_tokens)
        assert np.array_equal(records.output_tokens, workload.output_tokens)
        assert np.all(np.diff(records.arrival_s) >= 0)

    def test_all_users_begin_at_once_and_stay_busy(self) -> None:
        records = run(ClosedLoop(requests(50), 8))
        assert np.sum(records.arrival_s == 0.0) == 8
        assert most_in_flight(records) == 8
        # Without thinking, each later request is sent the moment some answer is there.
        assert set(records.arrival_s[8:]) <= set(records.finish_s)

    def test_a_single_user_thinks_between_answer_and_request(self) -> None:
        think_s = np.array([1.0, 2.0, 0.5])
        records = run(ClosedLoop(requests(3), 1, think_s))
        assert records.arrival_s[1:] - records.finish_s[:-1] == pytest.approx(think_s[:-1])

    def test_enough_users_are_an_open_loop(self) -> None:
        workload = requests(40, rate=5.0)
        assert np.array_equal(run(ClosedLoop(workload, 40)).finish_s, run(workload).finish_s)

    def test_nobody_sends_before_a_request_is_due(self) -> None:
        workload = requests(40, rate=20.0)
        records = run(ClosedLoop(workload, 2))
        assert np.all(records.arrival_s >= workload.arrival_s)
        assert most_in_flight(records) <= 2
        assert np.any(records.arrival_s > workload.arrival_s)

    def test_a_rejected_request_lets_its_user_go_on(self) -> None:
        lengths = np.array([10, 5000, 5000, 10])
        workload = Workload("any", np.zeros(4), lengths, np.full(4, 5))
        records = run(ClosedLoop(workload, 1), max_model_len=1000)
        assert records.status.tolist() == [FINISHED, REJECTED, REJECTED, FINISHED]
        assert records.arrival_s[1:].tolist() == [records.finish_s[0]] * 3

    def test_the_same_source_runs_again_to_the_same_records(self) -> None:
        source = ClosedLoop(requests(30), 4, ThinkTime(0.2, 1).draw(np.random.default_rng(0), 30))
        assert np.array_equal(run(source).finish_s, run(source).finish_s)

    def test_progress_counts_all_requests(self) -> None:
        reports: list[tuple[int, int, float]] = []
        source = ClosedLoop(requests(30), 4)
        simulate(source, MODEL, HARDWARE, EngineOptions(), lambda *report: reports.append(report))
        assert reports[-1][:2] == (30, 30)

    def test_users_come_one_by_one_over_the_stagger(self) -> None:
        workload = Workload("any", np.zeros(8), np.full(8, 10), np.full(8, 5))
        records = run(ClosedLoop(workload, 4, think_s=1000.0, stagger_s=100.0))
        assert records.arrival_s.tolist()[:4] == [0.0, 25.0, 50.0, 75.0]

    def test_no_users_are_refused(self) -> None:
        with pytest.raises(WorkloadError, match="0 users send no requests"):
            ClosedLoop(requests(3), 0)

    def test_a_stagger_before_the_start_is_refused(self) -> None:
        with pytest.raises(WorkloadError, match="users cannot come over -1 seconds"):
            ClosedLoop(requests(3), 1, stagger_s=-1.0)


class TestConversations:
    def test_a_turn_follows_the_answer_and_the_time_to_think(self) -> None:
        talk = talks(num_sessions=1, turns=4, think_time=ThinkTime(1.5), session_rate=math.inf)
        records = run(Conversations(talk))
        assert records.arrival_s[0] == 0.0
        assert records.arrival_s[1:] - records.finish_s[:-1] == pytest.approx(1.5)
        assert np.array_equal(records.input_tokens, talk.input_tokens)
        assert np.all(np.diff(records.input_tokens) > 0)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 99), st.one_of(st.none(), st.integers(1, 4)))
    def test_every_turn_is_sent_once_and_never_two_of_a_session_at_a_time(self, seed: int, users: int | None) -> None:
        talk = talks(seed)
        records = run(Conversations(talk, users))
        sent = sorted(zip(records.input_tokens.tolist(), records.output_tokens.tolist(), strict=True))
        assert sent == sorted(zip(talk.input_tokens.tolist(), talk.output_tokens.tolist(), strict=True))
        assert np.all(np.diff(records.arrival_s) >= 0)
        assert most_in_flight(records) <= (users or len(talk.start_s))

    def test_the_next_turn_finds_the_prompt_and_the_answer_of_the_last_in_the_cache(self) -> None:
        """The contract with the scheduler: units named for a prompt and its answer are found by the next prompt.

        The last token of an answer is never an input, so its block may be missing.
        """
        talk = talks(num_sessions=1, turns=5, input_len=100, output_len=150)
        records = run(Conversations(talk))
        said = talk.input_tokens[:-1] + talk.output_tokens[:-1]
        assert records.cached_tokens[1:].tolist() == ((said - 1) // 16 * 16).tolist()
        assert run(Conversations(talk), enable_prefix_caching=False).cached_tokens.sum() == 0

    def test_later_sessions_find_the_system_prompt(self) -> None:
        talk = talks(num_sessions=3, turns=1, session_rate=0.1)
        assert run(Conversations(talk)).cached_tokens.tolist() == [0, 96, 96]

    def test_sessions_without_users_begin_when_due(self) -> None:
        talk = talks(turns=1)
        assert run(Conversations(talk)).arrival_s == pytest.approx(talk.start_s)

    def test_a_user_ends_one_session_before_the_next(self) -> None:
        talk = talks(num_sessions=3, turns=2, session_rate=math.inf, think_time=ThinkTime(0.25))
        records = run(Conversations(talk, users=1))
        assert records.arrival_s[1:] - records.finish_s[:-1] == pytest.approx(0.25)

    def test_turns_too_long_for_the_engine_are_rejected_and_counted(self) -> None:
        talk = talks(num_sessions=1, turns=6, input_len=200, output_len=100, system_tokens=0)
        records = run(Conversations(talk), max_model_len=1000)
        assert records.status.tolist() == [FINISHED] * 3 + [REJECTED] * 3

    def test_the_same_source_runs_again_to_the_same_records(self) -> None:
        source = Conversations(talks())
        assert np.array_equal(run(source).finish_s, run(source).finish_s)

    def test_no_users_are_refused(self) -> None:
        with pytest.raises(WorkloadError, match="0 users hold no conversations"):
            Conversations(talks(), 0)
