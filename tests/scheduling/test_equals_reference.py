"""The law that carries the simulation: the fast scheduler decides what the obvious one decides, at the same times."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduling.side_by_side import FAST, REFERENCES, Case, Job, assert_same
from simserve.scheduling import SchedulerLimits

EXAMPLES = int(os.environ.get("SIMSERVE_EQUALITY_EXAMPLES", "350"))


ONOFF = st.booleans()
WATERMARKS = st.sampled_from([0.0, 0.0, 0.1])
VLLM_V1 = {
    "prefix_caching": ONOFF,
    "long_prefill_token_threshold": st.sampled_from([0, 0, 3, 10]),
    "reserve_full_prompt": ONOFF,
    "watermark": WATERMARKS,
}
OPTIONS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "vllm-v1": VLLM_V1,
    "vllm-v1-priority": VLLM_V1,
    "vllm-v1-adapters": VLLM_V1,
    "vllm-v0": {"prefix_caching": ONOFF, "watermark": WATERMARKS},
    "sglang": {
        "prefix_caching": ONOFF,
        "chunked_prefill": ONOFF,
        "longest_prefix_first": ONOFF,
        "schedule_conservativeness": st.sampled_from([0.1, 1.0, 1.3]),
        "clip_max_new_tokens": st.sampled_from([7, 4096]),
    },
    "sarathi": {"prefix_caching": st.just(False), "watermark": WATERMARKS},
    "orca": {"prefix_caching": st.just(False)},
    "static": {"prefix_caching": st.just(False)},
}
"""Options that each policy honours, and what they are drawn from."""


@st.composite
def cases(draw: st.DrawFn, policy: str) -> Case:
    """Small engines under all kinds of pressure: few blocks, few slots, small budgets, shared prefixes, hang-ups."""
    block_size = draw(st.sampled_from([2, 4, 16]))
    per_unit = draw(st.sampled_from([0, 1, 3]))
    max_num_seqs = draw(st.integers(1, 8))
    whole_prompts = FAST[policy].whole_prompts
    limits = SchedulerLimits(
        num_blocks=draw(st.integers(6, 40)),
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_seqs + draw(st.integers(1, 100 if whole_prompts else 40)),
        **{name: draw(values) for name, values in OPTIONS[policy].items()},
    )
    longest = (limits.num_blocks - 1) * block_size - 1
    if whole_prompts:
        longest = min(longest, limits.max_num_batched_tokens - 1)
    job = st.builds(
        Job,
        arrival_s=st.integers(0, 200).map(lambda tick: tick / 64),
        input_tokens=st.integers(1, min(longest, 60)),
        output_tokens=st.integers(1, 40),
        units=st.sampled_from([(), (1,), (1, 2), (1, 2, 3, 4, 5, 6), (7,), (7, 8, 9)]) if per_unit else st.just(()),
        priority=st.integers(0, 3) if policy == "vllm-v1-priority" else st.just(0),
        adapter=st.integers(0, 4) if policy == "vllm-v1-adapters" else st.just(0),
        abort_s=st.one_of(st.none(), st.none(), st.integers(0, 300).map(lambda tick: tick / 64)),
    )
    unit_tokens = per_unit * block_size
    jobs = [
        _without_units_of_the_answer(job, per_unit, block_size) for job in draw(st.lists(job, min_size=1, max_size=14))
    ]
    if per_unit:
        jobs += draw(sessions(longest, unit_tokens, first_job=len(jobs)))
    max_loras = draw(st.integers(1, 3)) if policy == "vllm-v1-adapters" else 1
    return Case(jobs, limits, policy, draw(st.booleans()), unit_tokens, max_loras)


@st.composite
def sessions(draw: st.DrawFn, longest: int, unit_tokens: int, first_job: int) -> list[Job]:
    """Conversations: each turn's prompt is the one before, its answer and something new; units tell all of it apart."""
    jobs: list[Job] = []
    for session in range(draw(st.integers(0, 2))):
        context = 0
        for turn in range(draw(st.integers(1, 3))):
            input_tokens, output_tokens = context + draw(st.integers(1, 30)), draw(st.integers(1, 30))
            if input_tokens > longest:
                break
            context = input_tokens + output_tokens
            units = tuple(1000 * (session + 1) + index for index in range(-(-context // unit_tokens)))
            after = first_job + len(jobs) - 1 if turn else None
            jobs.append(Job(draw(st.integers(1, 64)) / 64, input_tokens, output_tokens, units, after=after))
    return jobs


def _without_units_of_the_answer(job: Job, per_unit: int, block_size: int) -> Job:
    """Only in a session can another prompt hold an answer, and not before it is out; a long unit ends with a prompt."""
    full_blocks = job.input_tokens // block_size
    return replace(job, units=job.units[: -(-full_blocks // per_unit)] if per_unit else ())


@pytest.mark.parametrize("policy", sorted(REFERENCES))
def test_same_steps_same_times(policy: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(cases(policy))
    def law(case: Case) -> None:
        assert_same(case)

    law()
