"""What every policy must cope with: ends that nobody foresaw, clients that leave, answers that the next turn holds."""

from __future__ import annotations

import pytest

from simserve.scheduling import POLICIES, Request, Scheduler, SchedulerLimits, Status, StepPlan


def serving(policy: str, *lengths: tuple[int, int]) -> tuple[Scheduler, list[Request]]:
    limits = SchedulerLimits(
        num_blocks=50, block_size=4, max_num_seqs=8, max_num_batched_tokens=64, prefix_caching=False
    )
    scheduler = POLICIES[policy](limits)
    requests = [Request(name, inputs, outputs) for name, (inputs, outputs) in zip("ABCDEFGH", lengths, strict=False)]
    for request in requests:
        scheduler.add(request)
    return scheduler, requests


def run_to_the_end(scheduler: Scheduler) -> int:
    steps = 0
    while scheduler.has_requests:
        scheduler.complete(scheduler.schedule())
        steps += 1
        assert steps < 1000
    return steps


@pytest.mark.parametrize("policy", sorted(POLICIES))
class TestEveryPolicy:
    def test_an_end_that_nobody_foresaw(self, policy: str) -> None:
        scheduler, (a, b, c) = serving(policy, (6, 9), (7, 9), (5, 9))
        scheduler.complete(scheduler.schedule())
        plan = scheduler.schedule(list_decodes=True)
        assert plan.decodes == [a, b, c]
        assert scheduler.complete(plan, ended=[b]) == [b]
        assert (b.status, b.produced_tokens) == (Status.FINISHED, 2)
        run_to_the_end(scheduler)
        assert (a.produced_tokens, b.produced_tokens, c.produced_tokens) == (9, 2, 9)
        assert scheduler.blocks.used_blocks == 0

    def test_an_end_that_nobody_foresaw_while_the_next_step_is_planned(self, policy: str) -> None:
        scheduler, (a, b) = serving(policy, (6, 9), (7, 9))
        scheduler.complete(scheduler.schedule())
        plan = scheduler.schedule(list_decodes=True)
        ahead = scheduler.schedule(list_decodes=True)
        assert scheduler.complete(plan, ended=[b]) == [b]
        assert scheduler.complete(ahead) == []
        run_to_the_end(scheduler)
        assert a.produced_tokens == 9
        assert scheduler.blocks.used_blocks == 0

    def test_a_client_that_leaves(self, policy: str) -> None:
        scheduler, (a, b, c) = serving(policy, (6, 9), (7, 9), (5, 9))
        scheduler.complete(scheduler.schedule())
        scheduler.complete(scheduler.schedule())
        assert scheduler.abort("A") is a
        assert scheduler.abort("A") is None
        run_to_the_end(scheduler)
        assert [request.status for request in (a, b, c)] == [Status.ABORTED, Status.FINISHED, Status.FINISHED]
        assert scheduler.blocks.used_blocks == 0

    def test_clients_that_leave_while_they_wait_for_others_prompts(self, policy: str) -> None:
        scheduler, _ = serving(policy, (6, 9))
        scheduler.complete(scheduler.schedule())
        scheduler.add(Request("late", 8, 3))
        scheduler.complete(scheduler.schedule())
        scheduler.abort("A")
        run_to_the_end(scheduler)
        assert scheduler.blocks.used_blocks == 0

    def test_many_quiet_steps_are_one_plan(self, policy: str) -> None:
        scheduler, (a, b) = serving(policy, (6, 30), (6, 40))
        scheduler.complete(scheduler.schedule())
        plans: list[StepPlan] = []
        while scheduler.has_requests:
            plans.append(scheduler.schedule(most_repeats=1000))
            scheduler.settle(plans[-1], plans[-1].repeat)
            scheduler.complete(plans[-1])
        assert len(plans) <= 4
        assert sum(plan.repeat for plan in plans) == 39
        assert (a.produced_tokens, b.produced_tokens) == (30, 40)


@pytest.mark.parametrize("policy", ["vllm-v1", "sglang"])
def test_the_next_turn_of_a_session_finds_prompt_and_answer(policy: str) -> None:
    scheduler = POLICIES[policy](SchedulerLimits(num_blocks=50, block_size=4))
    scheduler.add(Request("first", 10, 11, units=(1, 2, 3, 4, 5), unit_tokens=4))
    run_to_the_end(scheduler)
    second = Request("second", 30, 2, units=(1, 2, 3, 4, 5, 6, 7), unit_tokens=4)
    scheduler.add(second)
    run_to_the_end(scheduler)
    assert second.cached_tokens == 20  # of 10 + 11, the last of which was never computed: five blocks


def test_a_trace_s_last_unit_ends_where_the_prompt_does() -> None:
    """Its hash says nothing of the answer: the same prompt with another answer finds it."""
    scheduler = POLICIES["vllm-v1"](SchedulerLimits(num_blocks=50, block_size=4))
    scheduler.add(Request("first", 13, 11, units=(1, 2), unit_tokens=8))
    run_to_the_end(scheduler)
    again = Request("again", 13, 2, units=(1, 2), unit_tokens=8)
    scheduler.add(again)
    run_to_the_end(scheduler)
    assert again.cached_tokens == 12
