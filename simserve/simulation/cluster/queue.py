"""In which order requests leave the gateway's queue."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from simserve.scheduling import Request
from simserve.simulation.cluster.spec import TenantSpec

NO_DEADLINE_S = 1e18


class GatewayQueue:
    """Requests that wait for a member, by ``order``; equals in order of coming.

    ``fair`` is start-time fair queueing (Goyal, Vin and Cheng, 1996): each tenant's requests stand one behind the other
    on a clock that runs by their tokens over its share, and whoever stands foremost goes first.
    """

    def __init__(self, order: str, tenants: Sequence[TenantSpec]) -> None:
        self._order = order
        self._tenants = tenants
        self.tokens = 0
        """Of prompts and answers of all that wait."""
        self._heap: list[tuple[float, int, Request]] = []
        self._pushed = 0
        self._pushed_in_front = 0
        self._clock = 0.0
        self._tags: list[float] = [0.0] * max(len(tenants), 1)
        """Of each tenant: where its next request stands, at the earliest."""

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, request: Request) -> None:
        self._pushed += 1
        self.tokens += tokens_of(request)
        heappush(self._heap, (self._place(request), self._pushed, request))

    def push_front(self, request: Request) -> None:
        """Before everybody: a request that was on its way already, after others that were."""
        self._pushed_in_front += 1
        self.tokens += tokens_of(request)
        heappush(self._heap, (float("-inf"), self._pushed_in_front, request))

    def peek(self) -> Request:
        return self._heap[0][2]

    def pop(self) -> Request:
        place, _, request = heappop(self._heap)
        self.tokens -= tokens_of(request)
        if self._order == "fair" and place > self._clock:
            self._clock = place
        return request

    def remove(self, request: Request) -> bool:
        """Take ``request`` off, wherever it stands; whether it was here."""
        left = [entry for entry in self._heap if entry[2] is not request]
        if len(left) == len(self._heap):
            return False
        self._heap = left
        heapify(left)
        self.tokens -= tokens_of(request)
        return True

    def _place(self, request: Request) -> float:
        if self._order == "priority":
            return request.priority
        if self._order == "deadline":
            slo_s = self._tenants[request.tenant].ttft_slo_s if self._tenants else None
            return request.arrival_s + (NO_DEADLINE_S if slo_s is None else slo_s)
        if self._order == "fair":
            share = self._tenants[request.tenant].share if self._tenants else 1.0
            start = max(self._clock, self._tags[request.tenant])
            self._tags[request.tenant] = start + tokens_of(request) / share
            return start
        return 0.0


def tokens_of(request: Request) -> int:
    """What ``request`` will have in the KV cache when it ends."""
    return request.input_tokens + request.output_tokens
