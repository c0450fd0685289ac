"""Members that fail and come back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

import simpy

from simserve.scheduling import Request
from simserve.simulation.arrivals import Moment
from simserve.simulation.cluster.gateway import Gateway
from simserve.simulation.cluster.member import Member, State
from simserve.simulation.cluster.spec import FailureSpec


class Failures:
    """Has ``members`` fail as ``specs`` say, until ``gateway`` has nothing more to do."""

    def __init__(
        self,
        env: simpy.Environment,
        specs: Sequence[FailureSpec],
        members: Sequence[Member],
        gateway: Gateway,
        seed: int,
        is_over: simpy.Event,
    ) -> None:
        self._env = env
        self._gateway = gateway
        self._is_over = is_over
        for number, spec in enumerate(specs):
            group = [member for member in members if member.group.name == spec.group and member is member.mates[0]]
            if spec.replica is not None and spec.at_s is not None:
                Moment(env, spec.at_s, partial(self._fail_when_due, group[spec.replica], spec))
                continue
            for member in group:
                rng = random.Random(f"failures {seed} {number} {member.number}")
                env.process(self._fail_at_random(member, spec, rng))

    def fail(self, member: Member, down_s: float | None) -> None:
        """Have ``member`` and its mates fail now, unless it has no engine that could; they are back after ``down_s``.

        With None they are gone, and an autoscaler may start others in their place.
        """
        if member.state not in (State.READY, State.DRAINING) or self._is_over.triggered:
            return
        requests = []
        for mate in member.mates:
            if mate.state in (State.READY, State.DRAINING):
                requests += self._fail_alone(mate, down_s)
        self._gateway.members_changed()
        self._gateway.retry(requests)

    def _fail_alone(self, member: Member, down_s: float | None) -> list[Request]:
        """The requests that ``member`` had, or that lose by its failure what was computed."""
        was_draining = member.state is State.DRAINING
        member.state = State.DOWN
        requests = member.halt()
        for request in requests:
            self._gateway.release(member, request)
        requests += self._gateway.lose(member, requests)
        self._gateway.router.forget(member)
        if was_draining or down_s is None:
            member.state = State.STOPPED
            member.release_devices()
        else:
            failures = member.failures
            Moment(self._env, self._env.now + down_s, lambda _: self._come_back(member, failures))
        return requests

    def _fail_when_due(self, member: Member, spec: FailureSpec, _: simpy.Event) -> None:
        self.fail(member, spec.down_s)

    def _come_back(self, member: Member, failures: int) -> None:
        if member.state is State.DOWN and member.failures == failures:  # else somebody brought it back before
            member.state = State.READY
            self._gateway.members_changed()

    def _fail_at_random(self, member: Member, spec: FailureSpec, rng: random.Random) -> simpy.events.ProcessGenerator:
        assert spec.mean_time_between_failures_s is not None
        while not self._is_over.triggered:
            up_s = rng.expovariate(1.0 / spec.mean_time_between_failures_s)
            yield self._env.timeout(up_s) | self._is_over
            if self._is_over.triggered:
                return
            self.fail(member, spec.down_s)
            if spec.down_s is None:
                return
            yield self._env.timeout(spec.down_s) | self._is_over
