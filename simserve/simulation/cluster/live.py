"""A cluster that runs for as long as somebody wants it to: requests come from outside, and so do orders.

It differs from one that serves a workload in three ways: every step is told by itself, with the names of its decodes;
requests may be given up; and who runs it may kill, revive and drain members.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Protocol

import simpy

from simserve.metrics.records import ABORTED
from simserve.scheduling import Request
from simserve.simulation.cluster.groups import Group
from simserve.simulation.cluster.member import Member, State
from simserve.simulation.cluster.queue import tokens_of
from simserve.simulation.cluster.recorder import GroupRecorder, give_back_moved
from simserve.simulation.cluster.simulate import Cluster
from simserve.simulation.cluster.spec import ClusterSpec
from simserve.simulation.replica import Run
from simserve.simulation.sources import Submit

DECISIONS_KEPT = 1000
"""Of each autoscaler: the last ones, for a server may run for years."""

UNLIMITED = {"max_requests": None, "max_tokens": None, "max_waiting_requests": None}


class Listener(Protocol):
    """Is told what becomes of the requests."""

    def ran(self, member: Member, run: Run, finished: Sequence[Request]) -> None:
        """``member`` is through with ``run``, one step; those in ``finished`` got their last token from it."""
        ...

    def lost(self, request: Request, status: int, member: Member | None) -> None:
        """``request`` will get no more tokens; ``status`` is one of :mod:`simserve.metrics.records`.

        ``member`` had it last, if any had.
        """
        ...


class LiveMember(Member):
    """A member that may be killed at any time, and whose requests may be given up."""

    list_decodes = True
    given: Callable[[Request, Member], None]
    """Is told of each request that it is given."""

    def submit(self, request: Request) -> None:
        """See :meth:`Member.submit`."""
        self.given(request, self)
        super().submit(request)

    def run_done(self, run: Run, finished: list[Request]) -> None:
        """See :class:`simserve.simulation.replica.StepObserver`; some may have been given up during the step."""
        super().run_done(run, [request for request in finished if request.request_id in self.held])

    def _build(self) -> None:
        self._may_halt = True
        super()._build()


class LiveCluster(Cluster):
    """The cluster of ``spec`` without a workload; ``listener`` hears of all that comes of it.

    Time passes while somebody steps :attr:`env`. What the file limits is not refused here: ask :meth:`refusal` before.
    """

    new_member = LiveMember

    def __init__(self, spec: ClusterSpec, groups: list[Group], listener: Listener) -> None:
        self._listener = listener
        self._limits = spec.router
        self._unfinished: dict[Hashable, Request] = {}
        self._last_member: dict[Hashable, Member] = {}
        """By request: who was given it last."""
        unlimited = spec.router.model_copy(update=UNLIMITED)
        super().__init__(spec.model_copy(update={"router": unlimited}), groups, _Visitors(), None)
        self.counts.of_each = False
        for member in self.members:
            assert isinstance(member, LiveMember)
            member.given = self._given
            member.observe(self)
        for autoscaler in self.autoscalers:
            autoscaler.decisions = deque(maxlen=DECISIONS_KEPT)

    @property
    def is_quiet(self) -> bool:
        """Whether no request is anywhere, and no step runs."""
        return not self._unfinished and all(member.replica.is_idle for member in self.members)

    def submit(self, request: Request) -> None:
        """Take ``request``, which comes now; no other of its id may be here."""
        self._unfinished[request.request_id] = request
        self.gateway.submit(request)

    def last_member(self, request: Request) -> Member | None:
        """Who was given ``request`` last, if it is here and anybody was."""
        return self._last_member.get(request.request_id)

    def abort(self, request_id: Hashable) -> None:
        """Drop a request wherever it is: in the gateway, on a member, or between two. Nothing happens if it is not."""
        request = self._unfinished.get(request_id)
        if request is not None:
            self.gateway.abort(request)
            for member in self.members:
                self._stop_if_drained(member)

    @property
    def has_limits(self) -> bool:
        """Whether :meth:`refusal` could ever find anything."""
        return any(getattr(self._limits, name) is not None for name in UNLIMITED)

    def refusal(self, tokens: int, unfinished: Collection[Request], coming: int) -> str | None:
        """The limit of the file that a request of ``tokens`` tokens, prompt and answer, would break now; None: none.

        ``unfinished`` are all others, of which ``coming`` are not in the gateway yet.
        """
        limits = self._limits
        if limits.max_requests is not None and len(unfinished) >= limits.max_requests:
            return f"max_requests {limits.max_requests}"
        if limits.max_tokens is not None:
            here = self.gateway.unfinished_tokens
            coming_tokens = sum(tokens_of(one) for one in unfinished if one.request_id not in self._unfinished)
            if here + coming_tokens + tokens > limits.max_tokens:
                return f"max_tokens {limits.max_tokens}"
        most = limits.max_waiting_requests
        if most is not None and len(self.gateway.queue) + coming - self.gateway.free_places >= most:
            return f"max_waiting_requests {most}"
        return None

    def kill(self, member: Member, down_s: float | None) -> bool:
        """Have ``member`` fail now, to be back after ``down_s`` (None: never by itself); False if it has no engine."""
        if member.state not in (State.READY, State.DRAINING):
            return False
        self.failures.fail(member, down_s)
        return True

    def revive(self, member: Member) -> bool:
        """Have ``member`` ready now, whatever it was, with its mates.

        False if it is there, or on its way by itself.
        """
        if member.state in (State.READY, State.STARTING):
            return False
        for mate in member.mates:
            if mate.state is State.STOPPED:
                mate.take_devices()
            mate.state = State.READY
        if self.handover is not None and member.group.spec.role == "decode":
            self.handover.resume()
        self.gateway.members_changed()
        return True

    def drain(self, member: Member) -> bool:
        """Give ``member`` and its mates no more requests, and stop each once it has ended those it has.

        False if it is not ready.
        """
        if member.state is not State.READY:
            return False
        for mate in member.mates:
            if mate.state is State.READY:
                mate.state = State.DRAINING
        self.gateway.members_changed()
        for mate in member.mates:
            self._stop_if_drained(mate)
        return True

    # What a member tells those who observe it.

    def ended(self, member: Member, requests: list[Request]) -> None:
        """See :class:`simserve.simulation.cluster.member.MemberObserver`."""
        self._stop_if_drained(member)

    def refused(self, member: Member, request: Request) -> None:
        """See :class:`simserve.simulation.cluster.member.MemberObserver`."""
        self._stop_if_drained(member)

    def handed_over(self, member: Member, request: Request) -> None:
        """See :class:`simserve.simulation.cluster.member.MemberObserver`."""
        self._stop_if_drained(member)

    # What the recorder tells.

    def recorded(self, index: int, run: Run, finished: list[Request]) -> None:
        """The member with that index is through with ``run``."""
        for request in finished:
            self._forget(request)
        self._listener.ran(self.members[index], run, finished)

    def left(self, request: Request, status: int) -> None:
        """``request`` has ended elsewhere than in a step."""
        member = self._forget(request)
        if status != ABORTED:
            self._listener.lost(request, status, member)

    def _given(self, request: Request, member: Member) -> None:
        self._last_member[request.request_id] = member

    def _forget(self, request: Request) -> Member | None:
        """``request`` has ended; who had it last."""
        give_back_moved(request)
        del self._unfinished[request.request_id]
        return self._last_member.pop(request.request_id, None)

    def _new_recorder(self, group: Group) -> GroupRecorder:
        return _Teller(self, group)

    def _stop_if_drained(self, member: Member) -> None:
        if member.state is State.DRAINING and not member.held:
            member.state = State.STOPPED
            member.release_devices()
            self.gateway.router.forget(member)
            member.renew()
            self.gateway.members_changed()


class _Teller(GroupRecorder):
    """Keeps nothing, and tells the cluster."""

    def __init__(self, cluster: LiveCluster, group: Group) -> None:
        super().__init__(lambda: 0, group.setup.timer)
        self._cluster = cluster

    def run_done(self, run: Run, finished: list[Request]) -> None:
        self._cluster.recorded(self.member, run, finished)

    def finish(self, request: Request, status: int) -> None:
        self._cluster.left(request, status)


class _Visitors:
    """A source that never ends and sends nothing by itself."""

    name = "live"

    def __len__(self) -> int:
        return sys.maxsize

    def start(self, env: simpy.Environment, submit: Submit) -> None:
        """They come when they like."""

    def finished(self, requests: Sequence[Request]) -> None:
        """They know."""
