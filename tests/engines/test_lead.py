"""A pass over a large batch begins so early that its middle token is on time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.engines.lead import LEAST_TOKENS, MOST_OF_STEP, MOST_S, Lead

FIVE_US = 5e-6


def taught(token_s: float = FIVE_US, passes: int = 200) -> Lead:
    lead = Lead()
    for _ in range(passes):
        lead.took(1000, 1000 * token_s)
    return lead


def test_half_a_pass_before_the_tokens_are_due() -> None:
    lead = taught()
    assert lead.of(1000, 0.02) == pytest.approx(2.5e-3)
    assert lead.of(200, 0.02) == pytest.approx(0.5e-3)


def test_nothing_is_early_before_a_pass_was_measured_nor_in_a_small_batch() -> None:
    assert Lead().of(1000, 0.02) == 0.0
    lead = taught()
    assert lead.of(LEAST_TOKENS - 1, 0.02) == 0.0
    lead.took(1, 1.0)
    assert lead.of(1000, 0.02) == pytest.approx(2.5e-3)


def test_a_pass_that_was_disturbed_changes_little() -> None:
    lead = taught()
    lead.took(1000, 10.0)
    assert lead.of(1000, 0.02) == pytest.approx(2.5e-3, rel=0.05)


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.floats(0.0, 10.0)), max_size=300),
    st.integers(1, 100_000),
    st.floats(1e-6, 1.0),
)
def test_no_token_is_earlier_than_the_limits(passes: list[tuple[int, float]], tokens: int, step_s: float) -> None:
    lead = Lead()
    for count, seconds in passes:
        lead.took(count, seconds)
    assert 0.0 <= lead.of(tokens, step_s) <= min(MOST_S, MOST_OF_STEP * step_s)
