"""vLLM V1 with LoRA adapters: requests of at most so many different adapters in one step (``scheduled_loras``, 0.19).

Who waits for an adapter that finds no room among those of the running requests is passed over, keeps its place, and
others may start. A request whose last token is in flight has nothing to compute any more and holds no room.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator
from heapq import merge
from typing import NamedTuple

from simserve.scheduling.decode_set import DecodeSet
from simserve.scheduling.kv_cache import PrefixHit
from simserve.scheduling.plan import StepPlan
from simserve.scheduling.request import Request, Status
from simserve.scheduling.scheduler import SchedulerLimits
from simserve.scheduling.vllm_v1 import VllmV1


class AdapterBatch(NamedTuple):
    """What a step has to do with adapters: their numbers, and the ``tokens`` of all requests that have one."""

    adapters: tuple[int, ...]
    tokens: int


NO_ADAPTERS = AdapterBatch((), 0)


class AdapterLines:
    """Waiting requests first come first served, but that only those whose adapter is allowed are next in line.

    ``running`` counts by adapter the running requests that go on; while there are ``most`` of them, only these, and
    requests without one, are allowed. A line for each adapter makes that cost as much as there are adapters.
    """

    def __init__(self, running: Counter[int]) -> None:
        self.running = running
        self.most = 1
        self._lines: dict[int, deque[tuple[int, Request]]] = {}
        self._last = self._first = 0
        self._count = 0

    @property
    def adapters(self) -> Collection[int]:
        """Adapters that requests wait for."""
        return [adapter for adapter in self._lines if adapter]

    def push(self, request: Request) -> None:
        self._last += 1
        self._line(request).append((self._last, request))
        self._count += 1

    def push_front(self, request: Request) -> None:
        self._first -= 1
        self._line(request).appendleft((self._first, request))
        self._count += 1

    def next_allowed(self) -> Request | None:
        """The first in line that may start beside those who run."""
        lines = self._lines
        allowed = (0, *self.running) if len(self.running) >= self.most else lines
        heads = [lines[adapter][0] for adapter in allowed if adapter in lines]
        return min(heads, key=_place)[1] if heads else None

    def peek(self) -> Request:
        request = self.next_allowed()
        assert request is not None
        return request

    def pop(self) -> Request:
        request = self.peek()
        self.remove(request)
        return request

    def remove(self, request: Request) -> None:
        line = self._lines[request.adapter]
        index = next(index for index, (_, waiting) in enumerate(line) if waiting is request)
        del line[index]
        if not line:
            del self._lines[request.adapter]
        self._count -= 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Request]:
        return (request for _, request in merge(*self._lines.values(), key=_place))

    def _line(self, request: Request) -> deque[tuple[int, Request]]:
        return self._lines.setdefault(request.adapter, deque())


class AdapterDecodeSet(DecodeSet):
    """Also knows how many of its members have which adapter."""

    def __init__(self, block_size: int) -> None:
        super().__init__(block_size)
        self.by_adapter: Counter[int] = Counter()

    def join(self, request: Request, step: int) -> None:
        super().join(request, step)
        if request.adapter:
            self.by_adapter[request.adapter] += 1

    def leave(self, request: Request, step: int) -> None:
        super().leave(request, step)
        if request.adapter:
            _take_one(self.by_adapter, request.adapter)


class AdapterVllmV1(VllmV1):
    """First come first served; call :meth:`allow_adapters` before the first request comes.

    Whoever runs a plan takes its :class:`AdapterBatch` from ``batches``, by its index; a plan without adapters has
    none.
    """

    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self._adapter_decodes = AdapterDecodeSet(limits.block_size)
        self._decoding = self._adapter_decodes
        self._going_on: set[Request] = set()
        """Running requests with an adapter that have something left to compute."""
        self._running_adapters: Counter[int] = Counter()
        self.lines = AdapterLines(self._running_adapters)
        self.waiting = self.lines
        self.batches: dict[int, AdapterBatch] = {}

    def allow_adapters(self, most: int) -> None:
        """Let a step have requests of at most ``most`` adapters."""
        self.lines.most = most

    @property
    def running_adapters(self) -> Collection[int]:
        """Adapters of the running requests that go on."""
        return self._running_adapters.keys()

    @property
    def admission_is_blocked(self) -> bool:
        return self.lines.next_allowed() is None or super().admission_is_blocked

    def plan(self, plan: StepPlan) -> None:
        super().plan(plan)
        self.batches.pop(plan.index, None)  # of a plan that turned out to be empty
        decodes = self._adapter_decodes.by_adapter
        adapters = dict.fromkeys(decodes)
        tokens = sum(decodes.values())
        for chunk in plan.chunks:
            if chunk.request.adapter:
                adapters[chunk.request.adapter] = None
                tokens += chunk.tokens
        if adapters:
            self.batches[plan.index] = AdapterBatch(tuple(adapters), tokens)

    def admit(
        self,
        plan: StepPlan,
        request: Request,
        hit: PrefixHit,
        tokens: int,
        reserve_tokens: int,
        *,
        allocate: bool = False,
    ) -> bool:
        """See :meth:`Scheduler.admit`."""
        admitted = super().admit(plan, request, hit, tokens, reserve_tokens, allocate=allocate)
        if admitted and request.adapter:
            self._going_on.add(request)
            self._running_adapters[request.adapter] += 1
        return admitted

    def preempt(self, plan: StepPlan, victim: Request, unhashed: int = 0) -> None:
        """See :meth:`Scheduler.preempt`."""
        super().preempt(plan, victim, unhashed)
        self._let_go(victim)

    def _begin_to_decode(self, request: Request) -> None:
        super()._begin_to_decode(request)
        if request.produced_tokens >= request.output_tokens:
            self._let_go(request)

    def _retire(self, last_step: int) -> None:
        super()._retire(last_step)
        for request in self._ending.get(last_step, ()):
            self._let_go(request)

    def _end(self, request: Request, status: Status) -> None:
        super()._end(request, status)
        self._let_go(request)

    def _let_go(self, request: Request) -> None:
        if request in self._going_on:
            self._going_on.remove(request)
            _take_one(self._running_adapters, request.adapter)


def _take_one(counts: Counter[int], adapter: int) -> None:
    counts[adapter] -= 1
    if not counts[adapter]:
        del counts[adapter]


def _place(entry: tuple[int, Request]) -> int:
    return entry[0]
