"""From prefill replicas to decode replicas: who goes on with a request, and its KV on the way there over a link."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import simpy

from simserve.scheduling import Request, Status
from simserve.simulation.arrivals import Moment
from simserve.simulation.cluster.loads import Loads
from simserve.simulation.cluster.member import Member, State
from simserve.simulation.cluster.queue import tokens_of
from simserve.simulation.cluster.routers import Router, pool_of
from simserve.simulation.cluster.spec import LinkSpec
from simserve.simulation.replica import Run
from simserve.simulation.watching.watcher import Watcher

GIGA = 1e9


class Link:
    """Sends one thing after the other, first come first served, each at the whole bandwidth."""

    def __init__(self, spec: LinkSpec) -> None:
        self.spec = spec
        self.busy_s = 0.0
        self.sent_bytes = 0
        self._free_s = 0.0
        self.last_send_s = (0.0, 0.0)
        """From when to when it was taken for what it sent last."""

    def send(self, size_bytes: int, earliest_s: float, whole_s: float, last_bytes: float) -> float:
        """When ``size_bytes`` have come over that can start at ``earliest_s``.

        They are complete only at ``whole_s``, and the ``last_bytes`` of them come after that.
        """
        per_byte_s = 1.0 / (self.spec.bandwidth_gb_per_s * GIGA)
        start_s = max(self._free_s, earliest_s)
        end_s = max(start_s + size_bytes * per_byte_s, whole_s + last_bytes * per_byte_s)
        self._free_s = end_s
        self.last_send_s = start_s, end_s
        self.busy_s += size_bytes * per_byte_s
        self.sent_bytes += size_bytes
        return end_s + self.spec.latency_s


class Handover:
    """Takes requests from prefill ``members`` after their first token, and brings them to decode members.

    A request waits, first come first served, until a decode member has room: its KV, that which is on the way to the
    member and that which is there already must fit its blocks. Then the KV is sent; when it is there, the member queues
    the request.
    """

    def __init__(
        self, env: simpy.Environment, links: Sequence[LinkSpec], members: Sequence[Member], router: Router, loads: Loads
    ) -> None:
        self._env = env
        self.links = {(link.source, link.to): Link(link) for link in links}
        self._decode = [member for member in members if member.group.spec.role == "decode"]
        self._router = router
        self._loads = loads
        self._waiting: deque[tuple[Request, Member, Run]] = deque()
        self._coming: dict[Hashable, tuple[Request, Member, Member, int]] = {}
        """By request id what is on a link: the request, from whom, to whom, and its KV blocks there."""
        self._coming_blocks = dict.fromkeys(self._decode, 0)
        self._instead: Callable[[Request], None] | None = None
        self._answers: dict[Hashable, int] = {}
        self.watchers: Sequence[Watcher] = ()
        """Told of each transfer."""

    @property
    def waiting_requests(self) -> int:
        """Requests that have no decode member yet."""
        return len(self._waiting)

    @property
    def requests_on_the_way(self) -> int:
        """Requests whose KV is on a link."""
        return len(self._coming)

    @property
    def waiting_tokens(self) -> int:
        """Of requests that have no decode member yet, prompts and answers."""
        return sum(tokens_of(request) for request, _, _ in self._waiting)

    def cut(self, request: Request) -> None:
        """Have ``request``, which goes to a prefill member, end there with its first token."""
        self._answers[request.request_id] = request.output_tokens
        request.output_tokens = 1

    def uncut(self, request: Request) -> None:
        """Give ``request`` its whole answer back."""
        request.output_tokens = self._answers.pop(request.request_id, request.output_tokens)

    def goes_on(self, request: Request) -> bool:
        """Whether ``request``, which has ended on a prefill member, has more tokens to come."""
        return self._answers[request.request_id] > 1

    def take(self, member: Member, request: Request, run: Run) -> None:
        """``request`` has its first token from ``run`` of the prefill ``member``; others may go before it."""
        self.uncut(request)
        request.last_token_s = request.first_token_s
        request.computed_tokens = request.allocated_tokens = 0
        request.left_behind = None
        request.last_step = request.joined_step = request.returned_step = -1
        request.status = Status.PREEMPTED
        request.received_tokens = request.input_tokens
        self._waiting.append((request, member, run))
        if self._instead is None:
            self.serve()
        else:
            self.give_up(self._instead)

    def serve(self) -> None:
        """Send what fits now."""
        while self._waiting and self._send(*self._waiting[0]):
            self._waiting.popleft()

    def give_up(self, instead: Callable[[Request], None]) -> None:
        """No decode member will ever be there again: ``instead`` gets whoever waits for one, now or later."""
        self._instead = instead
        while self._waiting:
            request, _, _ = self._waiting.popleft()
            request.received_tokens = 0
            instead(request)

    def resume(self) -> None:
        """There is a decode member again: nobody is given up any more."""
        self._instead = None

    def lose(self, member: Member) -> list[Request]:
        """``member`` has failed: the requests that were on the way from it or to it, which have lost their KV."""
        lost = [request for request, source, _ in self._waiting if source is member]
        self._waiting = deque(entry for entry in self._waiting if entry[1] is not member)
        for request, source, target, blocks in list(self._coming.values()):
            if member in (source, target):
                del self._coming[request.request_id]
                self._coming_blocks[target] -= blocks
                self._let_go(target, request)
                lost.append(request)
        for request in lost:
            request.received_tokens = 0
        return lost

    def drop(self, request: Request) -> bool:
        """Forget ``request``; whether it was here, waiting for a member or with its KV on the way to one.

        What is on a link stays there until it has come.
        """
        self._answers.pop(request.request_id, None)
        waiting = [entry for entry in self._waiting if entry[0] is not request]
        if len(waiting) < len(self._waiting):
            self._waiting = deque(waiting)
            return True
        if request.request_id not in self._coming:
            return False
        _, _, target, blocks = self._coming.pop(request.request_id)
        self._coming_blocks[target] -= blocks
        self._let_go(target, request)
        return True

    def _let_go(self, member: Member, request: Request) -> None:
        tokens = member.held.pop(request.request_id)
        self._loads.remove(member.index, tokens)

    def _send(self, request: Request, source: Member, run: Run) -> bool:
        fitting = [member for member in self._decode if self._fits(member, source, request)]
        pool = pool_of(fitting)
        if pool is None:
            return False
        target = self._router.choose(request, pool)
        tokens = tokens_of(request)
        target.held[request.request_id] = tokens
        self._loads.add(target.index, tokens)
        blocks = target.scheduler.blocks.blocks_for(request.input_tokens + 1)
        self._coming[request.request_id] = (request, source, target, blocks)
        self._coming_blocks[target] += blocks
        arrive = partial(self._arrive, request, target)
        Moment(self._env, self._sent_s(request, source, target, run), arrive)
        return True

    def _fits(self, member: Member, source: Member, request: Request) -> bool:
        if member.state is not State.READY or (source.group.name, member.group.name) not in self.links:
            return False
        if request.input_tokens >= member.most_tokens:
            return False
        cache = member.scheduler.blocks
        taken = cache.used_blocks + self._coming_blocks[member]
        return taken == 0 or taken + cache.blocks_for(request.input_tokens + 1) <= cache.usable_blocks

    def _sent_s(self, request: Request, source: Member, target: Member, run: Run) -> float:
        link = self.links[source.group.name, target.group.name]
        size_bytes = request.input_tokens * source.group.kv_bytes_per_token
        now_s = self._env.now
        if not link.spec.layerwise or now_s > run.sent_s:
            come_s = link.send(size_bytes, now_s, now_s, 0.0)
        else:
            layers = source.group.setup.model.num_layers
            first_s = run.last_start_s + (run.end_s - run.last_start_s) / layers
            come_s = link.send(size_bytes, first_s, now_s, size_bytes / layers)
        for watcher in self.watchers:
            watcher.transferred(f"{source.group.name} to {target.group.name}", request, size_bytes, *link.last_send_s)
        return come_s

    def _arrive(self, request: Request, target: Member, _: simpy.Event) -> None:
        coming = self._coming.get(request.request_id)
        if coming is None or coming[0] is not request or coming[2] is not target:
            return  # one of both ends has failed
        del self._coming[request.request_id]
        self._coming_blocks[target] -= coming[3]
        target.submit(request)
