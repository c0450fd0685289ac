"""Blocks with numbers: everybody has the pages that the counts promise, and nobody has another's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

import pytest
from hypothesis import given, settings

from scheduling.side_by_side import FAST, REFERENCES, Case, run_fast
from scheduling.test_equals_reference import cases
from simserve.scheduling import NumberedKVCache, Request, Scheduler, SchedulerLimits, StepPlan, VllmV1


class Audited:
    """A scheduler whose plans are run by an engine that writes into each page whose token it holds, and reads them."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.blocks = scheduler.number_blocks()
        self.planned = 0
        self._written: dict[tuple[int, int], Hashable] = {}
        self._schedule = scheduler.schedule
        scheduler.schedule = self.schedule  # type: ignore[method-assign]

    def schedule(self, most_repeats: int = 1, list_decodes: bool = False) -> StepPlan:
        plan = self._schedule(1, list_decodes=True)
        self.planned += 1
        work = [(chunk.request, chunk.context_tokens, chunk.tokens) for chunk in plan.chunks]
        for request in plan.decodes:
            assert request.decode_offset is not None
            work.append((request, request.decode_offset + plan.index - self.scheduler._decoding.stalled_steps, 1))
        for request, context, tokens in work:
            self.write(request, range(context, context + tokens))
        for request, context, tokens in work:
            self.read(request, context + tokens)
        assert self.blocks.unclaimed_pages == 0
        self.look_at_owners()
        return plan

    def write(self, request: Request, positions: range) -> None:
        table = self.blocks.table(request, positions.stop)
        for position in positions:
            page, slot = table[position // self.blocks.block_size], position % self.blocks.block_size
            self._written[page, slot] = self.name(request, position)

    def read(self, request: Request, tokens: int) -> None:
        """All that the request attends to is still there, from whatever step, request or time before a preemption."""
        table = self.blocks.table(request, tokens)
        for position in range(tokens):
            page, slot = table[position // self.blocks.block_size], position % self.blocks.block_size
            assert self._written[page, slot] == self.name(request, position)

    def name(self, request: Request, position: int) -> Hashable:
        """What a token's KV is known by: the unit that it belongs to, else its request."""
        end = 0
        for key, blocks in request.unit_blocks(self.blocks.block_size):
            end += blocks * self.blocks.block_size
            if position < end:
                return key, position
        return request.request_id, position

    def look_at_owners(self) -> None:
        """Each page is free or held, once; held twice only as a prefix that as many requests share."""
        free = [page for run in self.blocks._queue for page in run.pages]
        assert len(free) == self.blocks.free_blocks
        assert all(len(run.pages) == run.blocks for run in self.blocks._queue)
        held = Counter(page for table in self.blocks._tables.values() for page in table)
        shared = {page: run.holders for runs in self.blocks._cached.values() for run in runs for page in run.pages}
        assert sorted([*free, *held]) == list(range(1, self.blocks.usable_blocks + 1))
        assert all(count == shared.get(page, 1) for page, count in held.items())
        assert all(shared.get(page, 0) == 0 for page in free)


@pytest.mark.parametrize("policy", sorted(REFERENCES))
def test_numbering_changes_no_decision_and_no_page_has_two_owners(policy: str) -> None:
    @settings(max_examples=80, deadline=None)
    @given(cases(policy))
    def law(case: Case) -> None:
        counted, _ = run_fast(case)
        audited = Audited(type("Patched", (FAST[case.policy],), {})(case.limits))  # one whose methods can be replaced
        numbered, _ = run_fast(case, audited.scheduler)
        assert numbered == counted
        assert audited.planned
        assert not audited.blocks._tables

    law()


def scheduler(num_blocks: int = 9) -> tuple[Scheduler, NumberedKVCache]:
    made = VllmV1(SchedulerLimits(num_blocks, block_size=4, max_num_seqs=8, max_num_batched_tokens=64))
    return made, made.number_blocks()


def test_pages_in_the_life_of_a_request() -> None:
    """Five prompt tokens are two pages of four; the third comes with the token that does not fit, and all go back."""
    engine, pages = scheduler()
    request = Request("a", 5, 5)
    engine.add(request)
    tables = []
    while engine.has_requests:
        plan = engine.schedule(list_decodes=True)
        tables.append(list(pages.table(request, 5 + len(tables))))
        engine.complete(plan)
    assert tables == [[1, 2], [1, 2], [1, 2], [1, 2], [1, 2, 3]]
    assert pages.free_blocks == 8


def test_a_shared_prefix_is_the_same_pages() -> None:
    engine, pages = scheduler()
    first, second = Request("a", 10, 3, units=(1, 2), unit_tokens=4), Request("b", 9, 3, units=(1, 2), unit_tokens=4)
    engine.add(first)
    engine.complete(engine.schedule(list_decodes=True))
    engine.add(second)
    plan = engine.schedule(list_decodes=True)
    assert [(chunk.tokens, chunk.context_tokens) for chunk in plan.chunks] == [(1, 8)]
    assert pages.table(first, 11)[:2] == pages.table(second, 9)[:2]
    assert pages.table(first, 11)[2] != pages.table(second, 9)[2]


def test_an_answer_is_found_by_the_next_turn_of_its_session() -> None:
    """Units that are named when the request ends cover its answer; the next prompt begins with the same pages."""
    engine, pages = scheduler()
    first = Request("a", 6, 3, units=(1,), unit_tokens=4)
    engine.add(first)
    plan = engine.schedule(list_decodes=True)
    engine.complete(plan)
    for step in range(2):
        plan = engine.schedule(list_decodes=True)
        table = list(pages.table(first, 7 + step))
        first.units = (1, 2)
        engine.complete(plan)
    second = Request("b", 12, 1, units=(1, 2, 3), unit_tokens=4)
    engine.add(second)
    plan = engine.schedule(list_decodes=True)
    assert [(chunk.tokens, chunk.context_tokens) for chunk in plan.chunks] == [(4, 8)]
    assert pages.table(second, 12)[:2] == table
