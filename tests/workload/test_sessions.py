"""Sessions: contexts that grow by what was said, and units that carry from turn to turn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import WorkloadError
from simserve.workload import Sessions, ThinkTime, UniformLength, draw_sessions


def sessions(seed: int = 0, system_tokens: int = 40, unit_tokens: int = 16, **changes: object) -> Sessions:
    arguments = {
        "num_sessions": 5, "session_rate": 1.0, "turns": UniformLength(1, 6), "input_len": UniformLength(1, 50),
        "output_len": UniformLength(1, 60), "think_time": ThinkTime(1, 1), "seed": seed,
    }  # fmt: skip
    return draw_sessions(**(arguments | changes), system_tokens=system_tokens, unit_tokens=unit_tokens)


def test_a_conversation_by_hand() -> None:
    talk = sessions(num_sessions=2, turns=3, input_len=10, output_len=20, think_time=ThinkTime(2), system_tokens=100)
    assert talk.input_tokens.tolist() == [110, 140, 170] * 2
    assert talk.offsets.tolist() == [0, 3, 6]
    assert talk.think_s.tolist() == [2.0] * 6
    assert (len(talk), talk.name) == (6, "sessions-2x3x10+20@1")


@given(st.integers(0, 2**32), st.integers(0, 100), st.sampled_from([1, 16, 64]))
def test_every_turn_begins_with_all_of_the_one_before(seed: int, system_tokens: int, unit_tokens: int) -> None:
    talk = sessions(seed, system_tokens, unit_tokens)
    for session, (first, end) in enumerate(zip(talk.offsets[:-1], talk.offsets[1:], strict=True)):
        assert talk.input_tokens[first] > system_tokens
        for turn in range(first, end - 1):
            said = talk.input_tokens[turn] + talk.output_tokens[turn]
            assert talk.input_tokens[turn + 1] > said
            units = talk.units(session, turn)
            assert len(units) == said // unit_tokens
            assert talk.units(session, turn + 1)[: len(units)] == units


@given(st.integers(0, 100))
def test_sessions_share_the_system_prompt_and_nothing_else(system_tokens: int) -> None:
    talk = sessions(system_tokens=system_tokens)
    first, second = (set(talk.units(session, int(talk.offsets[session]))) for session in (0, 1))
    assert first & second == set(range(system_tokens // 16))


def test_the_seed_decides_and_other_lengths_leave_the_rest_alone() -> None:
    first, again, longer = sessions(3), sessions(3), sessions(3, input_len=500)
    assert np.array_equal(first.input_tokens, again.input_tokens)
    for column in ("start_s", "offsets", "output_tokens", "think_s"):
        assert np.array_equal(getattr(first, column), getattr(longer, column))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_sessions": 0}, "a workload of 0 sessions is empty"),
        ({"system_tokens": -1}, "a system prompt of -1 tokens cannot be"),
        ({"unit_tokens": 0}, "units of 0 tokens"),
        ({"turns": 0}, "0 tokens is too short"),
        ({"session_rate": 0.0}, "the request rate is 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(WorkloadError, match=sentence):
        sessions(**change)
