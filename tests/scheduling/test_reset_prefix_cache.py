"""An emptied prefix cache: an engine that forgot goes on as one that never knew."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.scheduling import POLICIES, Request, Scheduler, SchedulerLimits

LIMITS = SchedulerLimits(num_blocks=30, block_size=4, max_num_seqs=4, max_num_batched_tokens=16, max_model_len=100)

Job = tuple[int, int, int]
"""Prompt tokens, answer tokens, and which of a few families of prompts it is from."""

jobs = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30), st.integers(0, 2)), min_size=1, max_size=8)


def run(scheduler: Scheduler, wanted: list[Job], name: str) -> list[str]:
    """Serve all; every step as text, ids left out."""
    for at, (prompt, output, family) in enumerate(wanted):
        units = [family * 1000 + block for block in range(prompt // 4)]
        scheduler.add(Request(f"{name}{at}", prompt, output, units=units, unit_tokens=4))
    steps = []
    while scheduler.has_requests:
        plan = scheduler.schedule()
        chunks = [(chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
        steps.append(f"{plan.num_decodes} {plan.decode_context_tokens} {chunks} {len(plan.preempted)}")
        scheduler.complete(plan)
    return steps


@given(first=jobs, second=jobs, numbered=st.booleans())
def test_after_a_reset_it_is_as_if_nothing_had_been(first: list[Job], second: list[Job], numbered: bool) -> None:
    used, fresh = POLICIES["vllm-v1"](LIMITS), POLICIES["vllm-v1"](LIMITS)
    if numbered:
        used.number_blocks()
    run(used, first, "a")
    assert used.blocks.reset_prefix_cache()
    assert run(used, second, "b") == run(fresh, second, "b")


def test_it_is_refused_while_somebody_holds_blocks() -> None:
    scheduler = POLICIES["vllm-v1"](LIMITS)
    scheduler.add(Request("a", 20, 5, units=[1, 2, 3, 4, 5], unit_tokens=4))
    scheduler.complete(scheduler.schedule())
    assert not scheduler.blocks.reset_prefix_cache()
    run(scheduler, [], "")
    assert scheduler.blocks.reset_prefix_cache()


@pytest.mark.parametrize("reset", [True, False])
def test_what_a_preempted_request_left_behind_is_forgotten_too(reset: bool) -> None:
    scheduler = POLICIES["vllm-v1"](LIMITS)
    scheduler.add(Request("a", 16, 20, units=[1, 2, 3, 4], unit_tokens=4))
    while scheduler.steps < 8:
        scheduler.complete(scheduler.schedule())
    request = scheduler.running.popitem()[1]
    scheduler.preempt(scheduler.schedule(), request)
    if reset:
        assert scheduler.blocks.reset_prefix_cache()
    chunk = scheduler.schedule().chunks[0]
    assert (chunk.context_tokens == 0) == reset
