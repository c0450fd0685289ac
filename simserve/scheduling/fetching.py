"""vLLM V1 with a connector that fetches prefixes from elsewhere (``KVConnectorBase_V1``, read at 0.19).

The first in line whose prefix goes on in a lower tier is given blocks for it and leaves the line; others may start
meanwhile. When everything has come, it is first in line again and finds its prefix in the cache.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

from simserve.scheduling.fetching_kv_cache import FetchingKVCache, Unit
from simserve.scheduling.kv_cache import BlockRun, PrefixHit
from simserve.scheduling.plan import StepPlan
from simserve.scheduling.request import Request, Status
from simserve.scheduling.scheduler import SchedulerLimits
from simserve.scheduling.vllm_v1 import VllmV1, VllmV1Priority


class LowerTiers(Protocol):
    """Where KV is that the cache has forgotten."""

    def find(self, units: Sequence[Unit]) -> int:
        """How many of ``units``, from the first on, are there now; these are the last to be forgotten."""
        ...

    def touch(self, units: Sequence[Unit]) -> None:
        """These were asked for and found elsewhere: forget them last if they are here too."""
        ...


class Fetch:
    """What ``request`` waits for: ``coming`` of the ``runs`` that are held for it."""

    __slots__ = ("coming", "request", "runs")

    def __init__(self, request: Request, runs: list[BlockRun], coming: list[BlockRun]) -> None:
        self.request = request
        self.runs = runs
        self.coming = coming


class FetchingVllmV1(VllmV1):
    """``tiers`` are asked for what the cache does not have; None: nobody is.

    Whoever runs the plans takes ``begun`` after each, and tells :meth:`fetched` when one of these has come.
    """

    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self.cache = FetchingKVCache(limits.num_blocks, limits.block_size, limits.prefix_caching)
        self.blocks = self.cache
        self.tiers: LowerTiers | None = None
        self.begun: list[Fetch] = []
        self._fetches: dict[Hashable, Fetch] = {}
        """By request id; what has come is held until its request starts."""

    def fetched(self, fetch: Fetch) -> bool:
        """Everything has come: its request is first in line. False if nobody waits for it any more."""
        if self._fetches.get(fetch.request.request_id) is not fetch:
            return False
        self.cache.publish(fetch.coming)
        fetch.coming = []
        self.waiting.push_front(fetch.request)
        return True

    def find(self, request_id: Hashable) -> Request | None:
        """See :meth:`Scheduler.find`."""
        fetch = self._fetches.get(request_id)
        return super().find(request_id) if fetch is None else fetch.request

    @property
    def fetching_requests(self) -> int:
        """Requests that are neither waiting in line nor running, because their prefix is on its way."""
        return sum(bool(fetch.coming) for fetch in self._fetches.values())

    def abort_all(self) -> list[Request]:
        """See :meth:`Scheduler.abort_all`; who fetches comes before those in line."""
        for fetch in reversed(list(self._fetches.values())):
            if fetch.coming:
                self.waiting.push_front(fetch.request)
                self._let_go(fetch)
        return super().abort_all()

    def _plan_waiting(self, plan: StepPlan, budget: int) -> None:
        while self.waiting and budget > 0 and not self.admission_is_blocked:
            request = self.waiting.peek()
            if self._begin_fetch(request):
                continue
            tokens = self._start(plan, request, budget)
            if tokens:
                budget -= tokens
            elif self.running or not self._let_others_go(request):
                break

    def _begin_fetch(self, request: Request) -> bool:
        """Have the rest of the prefix fetched, or wait for room for it; False if there is nothing to fetch."""
        if self.tiers is None or request.received_tokens or request.request_id in self._fetches:
            return False
        hit = self.cache.find(request)
        self.tiers.touch([(run.key, run.blocks) for run in hit.runs])
        units = self.cache.not_found(request, hit)
        units = units[: self.tiers.find(units)] if units else units
        if not units:
            return False
        runs = self._set_aside(request, hit, units)
        if runs:
            self.waiting.pop()
            fetch = Fetch(request, runs, runs[len(hit.runs) :])
            self._fetches[request.request_id] = fetch
            self.begun.append(fetch)
            return True
        self._head_failed = (request, self.blocks.version)
        if not self.running:
            self._let_others_go(request)
        return True

    def _set_aside(self, request: Request, hit: PrefixHit, units: list[Unit]) -> list[BlockRun]:
        found = hit.blocks + sum(blocks for _, blocks in units)
        whole = self.limits.reserve_full_prompt
        reserve = request.known_tokens if whole else found * self.limits.block_size
        return self.cache.set_aside(hit, units, reserve, self._kept_free if self.running else 0)

    def _start(self, plan: StepPlan, request: Request, budget: int) -> int:
        """How many tokens of ``request``, the first in line, were put into the step."""
        limits = self.limits
        hit = self.blocks.find(request)
        hit_tokens = hit.blocks * limits.block_size
        tokens = self._wanted(request, max(hit_tokens, request.received_tokens))
        if tokens > budget:
            if not limits.chunked_prefill:
                return 0
            tokens = budget
        whole = limits.reserve_full_prompt or request.received_tokens
        if not self.admit(plan, request, hit, tokens, request.known_tokens if whole else hit_tokens + tokens):
            if not limits.reserve_full_prompt:
                self._head_failed = None  # it may fit a smaller budget
            return 0
        fetch = self._fetches.get(request.request_id)
        if fetch is not None:
            self._let_go(fetch)  # it holds them itself now
        return tokens

    def _let_others_go(self, first: Request) -> bool:
        """Nothing runs, and ``first`` does not fit beside what is held for others that wait: these hold it no longer.

        vLLM would stand still. What has come for them stays in the cache as long as nobody needs the blocks. Where
        nobody else holds or fetches anything, ``first`` itself may hold twins of what others have computed meanwhile.
        """
        fetches = list(self._fetches.values())
        held = [fetch for fetch in fetches if not fetch.coming and fetch.request is not first]
        if not held and len(fetches) == 1 and not fetches[0].coming:
            held = fetches
        for fetch in held:
            self._let_go(fetch)
        if held:
            self._head_failed = None
        return bool(held)

    def _let_go(self, fetch: Fetch) -> None:
        del self._fetches[fetch.request.request_id]
        self.cache.let_go(fetch.runs, fetch.coming)

    def _end(self, request: Request, status: Status) -> None:
        fetch = self._fetches.get(request.request_id)
        if fetch is not None:
            if fetch.coming:
                self.waiting.push_front(request)  # where everybody is looked for
            self._let_go(fetch)
        super()._end(request, status)


class FetchingVllmV1Priority(FetchingVllmV1, VllmV1Priority):
    """The same by priority."""
