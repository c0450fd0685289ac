"""Members that come and go with the load."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass

import numpy as np
import simpy

from simserve.scheduling import Request
from simserve.simulation.cluster.gateway import Gateway
from simserve.simulation.cluster.member import Member, State
from simserve.simulation.cluster.spec import AutoscalerSpec
from simserve.simulation.watching.watcher import Watcher

SLO_PERCENTILE = 90.0
GIGA = 1e9


@dataclass(frozen=True)
class ScalingDecision:
    """What an autoscaler saw and wanted at ``time_s``: ``metric`` beside its target, and how many replicas."""

    time_s: float
    group: str
    metric: float
    replicas: int
    wanted: int


class Autoscaler:
    """Starts and drains ``members``, all those that a group may have, as ``spec`` says.

    Wanted are ceil(replicas x metric / target), as by the Horizontal Pod Autoscaler of Kubernetes.
    """

    def __init__(
        self,
        env: simpy.Environment,
        spec: AutoscalerSpec,
        members: Sequence[Member],
        gateway: Gateway,
        is_over: simpy.Event,
    ) -> None:
        self._env = env
        self._spec = spec
        self._members = members
        self._gateway = gateway
        self._is_over = is_over
        self.decisions: MutableSequence[ScalingDecision] = []
        self.watchers: Sequence[Watcher] = ()
        self._link = simpy.Resource(env, capacity=1)
        self._busy_before_s: dict[Member, float] = dict.fromkeys(members, 0.0)
        self._ttft_s: list[float] = []
        self._wanted: deque[tuple[float, int]] = deque()
        for member in members:
            member.observe(self)
        env.process(self._look_again_and_again())

    def ended(self, member: Member, requests: list[Request]) -> None:
        """See :class:`simserve.simulation.cluster.member.MemberObserver`."""
        if self._spec.metric == "ttft":
            self._ttft_s += [request.first_token_s - request.arrival_s for request in requests]
        if member.state is State.DRAINING and not member.held:
            self._stop(member)

    def refused(self, member: Member, request: Request) -> None:
        """See :class:`simserve.simulation.cluster.member.MemberObserver`."""
        self.ended(member, [])

    def handed_over(self, member: Member, request: Request) -> None:
        """See :class:`simserve.simulation.cluster.member.MemberObserver`."""
        self.ended(member, [])

    def _look_again_and_again(self) -> simpy.events.ProcessGenerator:
        while not self._is_over.triggered:
            yield self._env.timeout(self._spec.interval_s) | self._is_over
            if not self._is_over.triggered:
                self._look()

    def _look(self) -> None:
        spec, now_s = self._spec, self._env.now
        there = [member for member in self._members if member.state in (State.READY, State.STARTING)]
        metric = self._metric([member for member in there if member.state is State.READY])
        wanted = math.ceil(len(there) * metric / spec.target - 1e-9) if there else spec.min_replicas
        wanted = min(max(wanted, spec.min_replicas), spec.max_replicas)
        self.decisions.append(ScalingDecision(now_s, spec.group, metric, len(there), wanted))
        self._wanted.append((now_s, wanted))
        while self._wanted[0][0] < now_s - spec.scale_down_delay_s:
            self._wanted.popleft()
        if wanted > len(there):
            self._start(wanted - len(there))
        elif (most := max(count for _, count in self._wanted)) < len(there):
            self._drain(there, len(there) - most)

    def _metric(self, ready: list[Member]) -> float:
        spec = self._spec
        if spec.metric == "queue":
            there = sum(member.state in (State.READY, State.STARTING) for member in self._members)
            return (sum(len(member.held) for member in ready) + len(self._gateway.queue)) / max(there, 1)
        if spec.metric == "ttft":
            ttft_s, self._ttft_s = self._ttft_s, []
            return float(np.percentile(ttft_s, SLO_PERCENTILE)) if ttft_s else 0.0
        busy_s = 0.0
        for member in self._members:
            busy_s += member.busy_s - self._busy_before_s[member]
            self._busy_before_s[member] = member.busy_s
        return busy_s / (spec.interval_s * max(len(ready), 1))

    def _start(self, count: int) -> None:
        """First those that drain, which have their weights; then those that are stopped."""
        draining = [member for member in self._members if member.state is State.DRAINING][:count]
        for member in draining:
            member.state = State.READY
        if draining:
            self._gateway.members_changed()
        stopped = [member for member in self._members if member.state is State.STOPPED]
        for member in stopped[: count - len(draining)]:
            member.state = State.STARTING
            member.take_devices()
            self._env.process(self._start_up(member))

    def _start_up(self, member: Member) -> simpy.events.ProcessGenerator:
        """Weights come over a link that all who start share, then the engine starts."""
        spec = self._spec
        weights = member.group.setup.weight_bytes * member.group.devices
        with self._link.request() as turn:
            yield turn
            begin_s = self._env.now
            yield self._env.timeout(weights / (spec.load_bandwidth_gb_per_s * GIGA))
        loaded_s = self._env.now
        yield self._env.timeout(spec.startup_s)
        member.state = State.READY
        self._gateway.members_changed()
        for watcher in self.watchers:
            watcher.started(member.index, member.name, weights, (begin_s, loaded_s, self._env.now))

    def _drain(self, there: list[Member], count: int) -> None:
        """Those that start last go first, then those that have the least to end."""
        starting = [member for member in there if member.state is State.STARTING]
        ready = sorted((m for m in there if m.state is State.READY), key=lambda m: (len(m.held), -m.index))
        for member in ready[: max(count - len(starting), 0)]:
            member.state = State.DRAINING
            if not member.held:
                self._stop(member)
        self._gateway.members_changed()

    def _stop(self, member: Member) -> None:
        member.state = State.STOPPED
        member.release_devices()
        self._gateway.router.forget(member)
        member.renew()
