"""The door of a cluster: refuses, queues, and hands requests to the members that a router chooses."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Sequence
from itertools import accumulate

import simpy

from simserve.metrics.records import ABORTED, FAILED, REJECTED, THROTTLED
from simserve.scheduling import Request, Status
from simserve.simulation.arrivals import Alarm
from simserve.simulation.cluster.handover import Handover
from simserve.simulation.cluster.loads import Loads
from simserve.simulation.cluster.member import Member, State
from simserve.simulation.cluster.queue import GatewayQueue, tokens_of
from simserve.simulation.cluster.recorder import NOBODY, GroupRecorder
from simserve.simulation.cluster.routers import Pool, Router, pool_of
from simserve.simulation.cluster.spec import ClusterSpec
from simserve.simulation.sources import Source


class Gateway:
    """Stands between a source and ``members``, and observes these.

    A request waits while others wait before it, or while no member takes it: all have ``requests_per_replica``, or none
    is ready. One that no member could ever hold goes to one of them, which rejects it.
    """

    def __init__(
        self,
        env: simpy.Environment,
        spec: ClusterSpec,
        members: Sequence[Member],
        router: Router,
        loads: Loads,
        recorder: GroupRecorder,
        source: Source,
        is_over: simpy.Event,
        handover: Handover | None,
    ) -> None:
        self._env = env
        self._limits = spec.router
        self._most_each = spec.router.requests_per_replica
        self._retry = spec.retry == "elsewhere"
        self._max_retries = spec.max_retries
        self._handover = handover
        self._tenants = spec.tenants
        self._traffic = list(accumulate(tenant.traffic for tenant in spec.tenants))
        self._rng = random.Random(f"tenants {spec.seed}")
        self._tenant_by_name: dict[Hashable, int] = {tenant.name: at for at, tenant in enumerate(spec.tenants)}
        self.members = members
        self.router = router
        self.loads = loads
        self._recorder = recorder
        self._source = source
        self._all_requests = len(source)
        self.queue = GatewayQueue(spec.router.order, spec.tenants)
        self._serve = Alarm(env, (self._on_serve,), before_others=True)
        limits = spec.router
        self._is_limited = (limits.max_requests, limits.max_tokens, limits.max_waiting_requests) != (None, None, None)
        self._most_tokens = 0
        """Most tokens that any member can hold that is there or may come back."""
        self._pool: Pool | None = None
        self._shortest = 0
        """Fewest tokens that any member of the pool can hold."""
        self._is_over = is_over
        self._came = 0
        self.done_requests = 0
        for member in members:
            member.observe(self)
        self.members_changed()

    def submit(self, request: Request) -> None:
        """Take ``request``, which comes now from the source."""
        self._came += 1
        if self._traffic:
            self._assign_tenant(request)
        if self._is_gone:
            self._end(request, FAILED)
        elif self._is_limited and self._is_too_much(request):
            self._end(request, THROTTLED)
        elif self.queue or (pool := self._pool_for(request)) is None:
            self.queue.push(request)
        else:
            self._hand_on(request, pool)

    def abort(self, request: Request) -> None:
        """Drop ``request``, which has not ended, wherever it is; see :meth:`Member.abort` for its KV blocks."""
        if not (self.queue.remove(request) or (self._handover is not None and self._handover.drop(request))):
            member = next(member for member in self.members if request.request_id in member.held)
            member.abort(request.request_id)
            self.release(member, request)
        self._end(request, ABORTED)
        self._serve_soon()

    def retry(self, requests: Sequence[Request]) -> None:
        """These were on a member that has failed: they go on elsewhere, before all that wait, or fail."""
        for request in requests:
            if not self._retry or self._is_gone or request.retries >= self._max_retries:
                self._end(request, FAILED)
                continue
            start_over(request)
            if request.input_tokens >= self._most_tokens:
                self._end(request, FAILED)
                continue
            request.retries += 1
            self.queue.push_front(request)
        self._serve_queue()

    @property
    def is_gone(self) -> bool:
        """Whether no member is left, nor ever will be, so that all requests fail."""
        return self._is_gone

    @property
    def unfinished_tokens(self) -> int:
        """Of all requests that have come and not ended, prompts and answers."""
        tokens = self.loads.total_tokens + self.queue.tokens
        return tokens if self._handover is None else tokens + self._handover.waiting_tokens

    @property
    def free_places(self) -> float:
        """Requests that members would take now; inf where they take any number."""
        if self._pool is None:
            return 0
        most = self._limits.requests_per_replica
        return math.inf if most is None else sum(most - len(member.held) for member in self._pool.members)

    def members_changed(self) -> None:
        """Some member has become ready, or is so no more."""
        no_decode = False
        left = [member for member in self.members if member.state is not State.STOPPED or member.is_replaceable]
        if self._handover is not None and all(member.group.spec.role != "decode" for member in left):
            left = [member for member in left if member.group.spec.role == "mixed"]
            no_decode = True
        left = [member for member in left if member.group.spec.role != "decode"]
        self._is_gone = not left
        self._most_tokens = max((member.most_tokens for member in left), default=0)
        self._pool = pool_of([member for member in left if self._is_open(member)])
        self._shortest = min((member.most_tokens for member in self._pool.members), default=0) if self._pool else 0
        while self._is_gone and self.queue:
            self._end(self.queue.pop(), FAILED)
        if self._handover is not None and no_decode:
            self._handover.give_up(self._start_elsewhere)
        self._serve_soon()

    def _serve_soon(self) -> None:
        """Look after what waits in a moment of its own: an engine that is just ending a step takes no requests."""
        if (self.queue or self._handover is not None) and not self._serve.is_set:
            self._serve.set(self._env.now)

    def _start_elsewhere(self, request: Request) -> None:
        self.retry((request,))

    def ended(self, member: Member, requests: list[Request]) -> None:
        """See :class:`simserve.simulation.cluster.member.MemberObserver`."""
        for request in requests:
            self.release(member, request)
        self._count(requests)
        if self._handover is not None:
            self._serve_soon()

    def refused(self, member: Member, request: Request) -> None:
        """See :class:`simserve.simulation.cluster.member.MemberObserver`."""
        self.release(member, request)
        self._end(request, REJECTED)

    def handed_over(self, member: Member, request: Request) -> None:
        """See :class:`simserve.simulation.cluster.member.MemberObserver`."""
        self.release(member, request)

    def lose(self, member: Member, halted: Sequence[Request]) -> list[Request]:
        """``member`` has failed with ``halted`` on it: who else has lost by it what was computed."""
        if self._handover is None:
            return []
        for request in halted:
            self._handover.uncut(request)
        return self._handover.lose(member)

    def release(self, member: Member, request: Request) -> None:
        """``member`` has ``request`` no more."""
        tokens = member.held.pop(request.request_id)
        self.loads.remove(member.index, tokens)
        if self._most_each is not None and len(member.held) + 1 == self._most_each:
            self.members_changed()

    def _assign_tenant(self, request: Request) -> None:
        drawn = self._rng.choices(range(len(self._traffic)), cum_weights=self._traffic)[0]
        request.tenant = self._tenant_by_name.get(request.session, drawn)
        request.priority = self._tenants[request.tenant].priority

    def _is_too_much(self, request: Request) -> bool:
        limits = self._limits
        waiting = len(self.queue)
        if limits.max_requests is not None and self._came - self.done_requests > limits.max_requests:
            return True
        if limits.max_tokens is not None and self.unfinished_tokens + tokens_of(request) > limits.max_tokens:
            return True
        most = limits.max_waiting_requests
        return most is not None and waiting >= most and (waiting > 0 or self._pool_for(request) is None)

    def _is_open(self, member: Member) -> bool:
        most = self._limits.requests_per_replica
        return member.state is State.READY and (most is None or len(member.held) < most)

    def _pool_for(self, request: Request) -> Pool | None:
        """Who can take ``request`` now."""
        pool = self._pool
        tokens = request.input_tokens
        if pool is None or tokens < self._shortest or tokens >= self._most_tokens:
            return pool
        return pool_of([member for member in pool.members if tokens < member.most_tokens])

    def _hand_on(self, request: Request, pool: Pool) -> None:
        """Give ``request`` to whom the router chooses of ``pool``."""
        member = self.router.choose(request, pool)
        tokens = tokens_of(request)
        member.held[request.request_id] = tokens
        self.loads.add(member.index, tokens)
        if self._most_each is not None and len(member.held) == self._most_each:
            self.members_changed()
        if member.handover is not None and self._handover is not None:
            self._handover.cut(request)
        member.submit(request)

    def _on_serve(self, event: simpy.Event) -> None:
        if self._handover is not None:
            self._handover.serve()
        self._serve_queue()

    def _serve_queue(self) -> None:
        while self.queue and (pool := self._pool_for(self.queue.peek())) is not None:
            self._hand_on(self.queue.pop(), pool)

    def _end(self, request: Request, status: int) -> None:
        self._recorder.member = NOBODY
        self._recorder.finish(request, status)
        self._count((request,))

    def _count(self, requests: Sequence[Request]) -> None:
        self.done_requests += len(requests)
        self._source.finished(requests)
        if self.done_requests == self._all_requests:
            self._is_over.succeed()


def start_over(request: Request) -> None:
    """Make ``request``, which another engine has had, fit for a new one: its answer so far goes to the prompt."""
    produced = request.produced_tokens
    if request.units and len(request.units) * request.unit_tokens > request.input_tokens + request.output_tokens:
        request.units = request.units[:-1]  # as in traces, it stands for the end of the prompt alone
    request.input_tokens += produced
    request.output_tokens -= produced
    request.moved_tokens += produced
    request.produced_tokens = request.computed_tokens = request.allocated_tokens = 0
    request.left_behind = None
    request.last_step = request.joined_step = request.returned_step = -1
    request.status = Status.WAITING if request.scheduled_s != request.scheduled_s else Status.PREEMPTED
