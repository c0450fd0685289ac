"""What vLLM V1 does step by step in six small cases, worked out by hand: read them to learn how a batch is made.

A line is one step: who decodes, and which prefill chunks run, each as (name, tokens, tokens already in the cache).
The chunk that reaches the end of a prompt also gives the first token; every decode gives one.
"""

from __future__ import annotations

from dataclasses import dataclass

from simserve.scheduling import POLICIES, Request, SchedulerLimits

Step = tuple[str, list[tuple[str, int, int]]]


@dataclass
class Comes:
    """A request that is there when ``at_step`` is planned."""

    name: str
    input_tokens: int
    output_tokens: int
    at_step: int = 0
    units: tuple[int, ...] = ()


def ledger(limits: SchedulerLimits, jobs: list[Comes]) -> list[Step]:
    scheduler = POLICIES["vllm-v1"](limits)
    steps: list[Step] = []
    coming = list(jobs)
    while coming or scheduler.has_requests:
        while coming and coming[0].at_step <= len(steps):
            job = coming.pop(0)
            scheduler.add(Request(job.name, job.input_tokens, job.output_tokens, units=job.units, unit_tokens=4))
        plan = scheduler.schedule(list_decodes=True)
        chunks = [(str(chunk.request.request_id), chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
        steps.append(("".join(str(request.request_id) for request in plan.decodes), chunks))
        scheduler.complete(plan)
    return steps


def test_chunked_prefill() -> None:
    """A prompt longer than the budget takes as many steps as it needs; its last chunk gives the first token."""
    limits = SchedulerLimits(num_blocks=100, block_size=4, max_num_seqs=8, max_num_batched_tokens=8)
    assert ledger(limits, [Comes("A", input_tokens=20, output_tokens=3)]) == [
        ("", [("A", 8, 0)]),
        ("", [("A", 8, 8)]),
        ("", [("A", 4, 16)]),
        ("A", []),
        ("A", []),
    ]


def test_many_decodes() -> None:
    """Prompts that fit the budget together start together, and then decode together."""
    limits = SchedulerLimits(num_blocks=100, block_size=4, max_num_seqs=8, max_num_batched_tokens=16)
    assert ledger(limits, [Comes("A", 4, 3), Comes("B", 5, 3), Comes("C", 6, 2)]) == [
        ("", [("A", 4, 0), ("B", 5, 0), ("C", 6, 0)]),
        ("ABC", []),
        ("AB", []),
    ]


def test_mixed_batch() -> None:
    """Whoever comes joins those who decode: one step computes B's prompt and A's next token."""
    limits = SchedulerLimits(num_blocks=100, block_size=4, max_num_seqs=8, max_num_batched_tokens=16)
    assert ledger(limits, [Comes("A", 4, 4), Comes("B", 6, 2, at_step=2)]) == [
        ("", [("A", 4, 0)]),
        ("A", []),
        ("A", [("B", 6, 0)]),
        ("AB", []),
    ]


def test_exhausted_budget() -> None:
    """Eight tokens a step: decodes take theirs first, then prompts in order, the last one cut to what is left."""
    limits = SchedulerLimits(num_blocks=100, block_size=4, max_num_seqs=8, max_num_batched_tokens=8)
    assert ledger(limits, [Comes("A", 4, 4), Comes("B", 10, 1), Comes("C", 3, 1)]) == [
        ("", [("A", 4, 0), ("B", 4, 0)]),
        ("A", [("B", 6, 4), ("C", 1, 0)]),
        ("A", [("C", 2, 1)]),
        ("A", []),
    ]


def test_preemption_on_full_memory() -> None:
    """Four blocks of four tokens. In the third step both need a third block: B, the newest, gives up its two.

    A takes the one that B returned first, B's second. When A has ended, B computes its nine known tokens (seven of the
    prompt, two of the answer) again, but for the four that are still in the block it returned last.
    """
    limits = SchedulerLimits(num_blocks=4 + 1, block_size=4, max_num_seqs=8, max_num_batched_tokens=16)
    assert ledger(limits, [Comes("A", 7, 6), Comes("B", 7, 6)]) == [
        ("", [("A", 7, 0), ("B", 7, 0)]),
        ("AB", []),
        ("A", []),
        ("A", []),
        ("A", []),
        ("A", []),
        ("", [("B", 5, 4)]),
        ("B", []),
        ("B", []),
        ("B", []),
    ]


def test_shared_prefix() -> None:
    """B's prompt is A's. Its two full blocks are in the cache since A's first step; the rest is computed again."""
    limits = SchedulerLimits(num_blocks=100, block_size=4, max_num_seqs=8, max_num_batched_tokens=16)
    assert ledger(limits, [Comes("A", 10, 2, units=(1, 2)), Comes("B", 10, 2, at_step=1, units=(1, 2))]) == [
        ("", [("A", 10, 0)]),
        ("A", [("B", 2, 8)]),
        ("B", []),
    ]
