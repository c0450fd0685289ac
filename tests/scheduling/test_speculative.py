"""How answers advance where drafts are verified, worked out by hand: blocks of four tokens, three tokens drafted."""

from __future__ import annotations

import pytest

from simserve.scheduling import Request, SchedulerLimits, StepPlan
from simserve.scheduling.speculative import Drafts, SpeculativePlan, SpeculativeVllmV1

Step = tuple[list[tuple[str, int]], list[tuple[str, int, int]]]
"""Who gets how many tokens by verification, and the prefill chunks as (name, tokens, cached tokens)."""


def engine(accepted: float, lookahead: int = 0, **limits: int) -> SpeculativeVllmV1:
    """All of three drafts are right, or none is."""
    sizes = {"num_blocks": 100, "block_size": 4, "max_num_seqs": 8, "max_num_batched_tokens": 16}
    scheduler = SpeculativeVllmV1(SchedulerLimits(**(sizes | limits)))
    scheduler.speculate(Drafts((accepted,) * 3, lookahead, seed=0))
    return scheduler


def told(plan: StepPlan) -> Step:
    assert isinstance(plan, SpeculativePlan)
    gains = [(str(request.request_id), gain) for request, gain in plan.gains]
    return gains, [(str(chunk.request.request_id), chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]


def ledger(scheduler: SpeculativeVllmV1, *requests: Request) -> list[Step]:
    steps = []
    for request in requests:
        scheduler.add(request)
    while scheduler.has_requests:
        plan = scheduler.schedule()
        steps.append(told(plan))
        scheduler.complete(plan)
    assert scheduler.blocks.used_blocks == 0
    return steps


def test_the_prompt_gives_the_first_token_and_each_step_after_it_the_accepted_ones_and_one_more() -> None:
    assert ledger(engine(1.0), Request("A", 6, 7)) == [
        ([], [("A", 6, 0)]),
        ([("A", 4)], []),
        ([("A", 2)], []),
    ]


def test_rejected_drafts_leave_one_token_a_step() -> None:
    assert ledger(engine(0.0), Request("A", 6, 4)) == [([], [("A", 6, 0)])] + [([("A", 1)], [])] * 3


def test_drafts_count_against_the_budget_of_the_step() -> None:
    """Ten tokens a step: A's four rows and B's four, and two of C's prompt; of three decodes the last has two rows."""
    steps = ledger(
        engine(1.0, max_num_batched_tokens=10), Request("A", 3, 20), Request("B", 3, 20), Request("C", 6, 20)
    )
    assert steps[0] == ([], [("A", 3, 0), ("B", 3, 0), ("C", 4, 0)])
    assert steps[1] == ([("A", 4), ("B", 4)], [("C", 2, 4)])
    assert steps[2] == ([("A", 4), ("B", 4), ("C", 2)], [])


def test_slots_are_there_for_all_rows_and_the_drafters_lookahead() -> None:
    """A has 6 tokens in two blocks. Four rows reach to 10 tokens, three blocks; three of the drafter to 13, four."""
    for lookahead, blocks in ((0, 3), (3, 4)):
        scheduler = engine(0.0, lookahead)
        scheduler.add(Request("A", 6, 9))
        scheduler.complete(scheduler.schedule())
        scheduler.complete(scheduler.schedule())
        assert scheduler.blocks.used_blocks == blocks


def test_who_finds_no_slots_makes_the_newest_one_leave() -> None:
    """Both have two blocks and need three for their rows: six are enough. Of five, A has three, and B leaves.

    A comes to hold all five, so that B finds nothing of its own again: it computes its prompt and first token.
    """
    steps = ledger(engine(1.0, num_blocks=6 + 1), Request("A", 7, 13), Request("B", 7, 3))
    assert steps[:3] == [
        ([], [("A", 7, 0), ("B", 7, 0)]),
        ([("A", 4), ("B", 2)], []),
        ([("A", 4)], []),
    ]
    small = engine(1.0, num_blocks=5 + 1)
    steps = ledger(small, Request("A", 7, 13), Request("B", 7, 3))
    assert steps[1] == ([("A", 4)], [])
    assert steps[-2:] == [([], [("B", 8, 0)]), ([("B", 1)], [])]


def test_a_step_planned_ahead_computes_once_more_whose_end_it_could_not_foresee() -> None:
    """Asynchronous scheduling: A's last three tokens come in the step before, which might have been one alone."""
    scheduler = engine(1.0)
    scheduler.add(Request("A", 6, 4))
    first = scheduler.schedule()
    second = scheduler.schedule()
    scheduler.complete(first)
    third = scheduler.schedule()
    assert isinstance(third, SpeculativePlan)
    assert told(second) == ([("A", 3)], [])
    assert (third.num_decodes, third.padding, third.rows, third.gains) == (1, 1, 4, [])
    assert [request.request_id for request in scheduler.complete(second)] == ["A"]
    assert scheduler.blocks.used_blocks == 0
    assert scheduler.complete(third) == []


def test_an_end_that_is_sure_is_foreseen() -> None:
    scheduler = engine(1.0)
    scheduler.add(Request("A", 6, 2))
    plans = [scheduler.schedule(), scheduler.schedule()]
    scheduler.complete(plans[0])
    assert scheduler.schedule().is_empty


@pytest.mark.parametrize("seed", range(3))
def test_shares_of_accepted_drafts_are_as_stated(seed: int) -> None:
    scheduler = SpeculativeVllmV1(SchedulerLimits(num_blocks=1 << 16))
    scheduler.speculate(Drafts((0.8, 0.5, 0.1), 0, seed))
    accepted = [scheduler._accepted(3) for _ in range(20_000)]
    for position, share in enumerate((0.8, 0.5, 0.1), 1):
        assert sum(count >= position for count in accepted) / 20_000 == pytest.approx(share, abs=0.02)
    assert scheduler._accepted(0) == 0
