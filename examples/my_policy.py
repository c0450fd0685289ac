"""A scheduling policy of your own: the shortest prompt first, and otherwise as in vLLM V1.

    simserve simulate --model opt-125m --hardware A100 --synthetic --policy examples/my_policy.py:MyPolicy

To decide more than the order, derive from ``Scheduler`` and write ``plan``: see docs/policies.md.
"""

from __future__ import annotations

from simserve.scheduling import Request, SchedulerLimits, VllmV1
from simserve.scheduling.waiting import KeyedQueue


class MyPolicy(VllmV1):
    """Shortest prompt first; a preempted request has its place by the same rule."""

    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self.waiting = KeyedQueue(prompt_length)


def prompt_length(request: Request) -> int:
    return request.input_tokens
