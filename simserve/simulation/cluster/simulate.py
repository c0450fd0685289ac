"""A whole run on a cluster as a batch job: workload or source in, records out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import simpy

from simserve.config import EngineOptions
from simserve.hardware import HardwareProfile
from simserve.latency.expert_parallel import ExpertTimer
from simserve.models import ModelSpec
from simserve.simulation.cluster.autoscaler import Autoscaler
from simserve.simulation.cluster.failures import Failures
from simserve.simulation.cluster.gateway import Gateway
from simserve.simulation.cluster.groups import Group, prepare_groups
from simserve.simulation.cluster.handover import Handover
from simserve.simulation.cluster.loads import Loads
from simserve.simulation.cluster.member import Member, RunObserver, State, Work
from simserve.simulation.cluster.process_memory import ENOUGH_MEMBERS, for_many_members, use_huge_pages
from simserve.simulation.cluster.recorder import GroupRecorder, SpeculativeGroupRecorder
from simserve.simulation.cluster.result import ClusterResult, result_of
from simserve.simulation.cluster.routers import Router, router_named
from simserve.simulation.cluster.spec import ClusterSpec
from simserve.simulation.features.counts import Counts
from simserve.simulation.lockstep import LockStep
from simserve.simulation.simulate import Progress
from simserve.simulation.sources import OpenLoop, Source, check_adapters
from simserve.simulation.watching.watcher import MemberWatch, Watcher
from simserve.workload.workload import Workload


@dataclass(frozen=True)
class Defaults:
    """What holds for groups that do not say otherwise."""

    model: ModelSpec | None = None
    hardware: HardwareProfile | None = None
    options: EngineOptions = field(default_factory=EngineOptions)


NO_DEFAULTS = Defaults()


def simulate_cluster(
    workload: Workload | Source,
    spec: ClusterSpec,
    defaults: Defaults = NO_DEFAULTS,
    on_progress: Progress | None = None,
    edge: int = 0,
    observers: tuple[RunObserver, ...] = (),
    watchers: Sequence[Watcher] = (),
) -> ClusterResult:
    """Serve ``workload`` on the cluster ``spec`` in simulated time. Same input, same result, to the bit.

    ``observers`` see what every member does, ``watchers`` transfers and starts as well. Raises
    :class:`simserve.errors.SimServeError` subclasses in one sentence that names the field of what cannot be honoured;
    for ``edge`` see :func:`simserve.simulation.setup.prepare`.
    """
    groups = prepare_groups(spec, defaults.model, defaults.hardware, defaults.options, edge)
    source = OpenLoop(workload) if isinstance(workload, Workload) else workload
    check_adapters(source, all(group.setup.adapters for group in groups))
    cluster = Cluster(spec, groups, source, on_progress)
    if watchers:
        observers += (MemberWatch(watchers),)
        if cluster.handover is not None:
            cluster.handover.watchers = watchers
        for scaler in cluster.autoscalers:
            scaler.watchers = watchers
    for member in cluster.members:
        for observer in observers:
            member.observe_runs(observer)
    cluster.run()
    return result_of(cluster, source.name)


class Cluster:
    """Everything that takes part in one run; see :func:`simulate_cluster`."""

    new_member: ClassVar[type[Member]] = Member

    def __init__(self, spec: ClusterSpec, groups: list[Group], source: Source, on_progress: Progress | None) -> None:
        self.spec = spec
        self.groups = groups
        self.source = source
        self.env = simpy.Environment()
        self.is_over = self.env.event()
        self._on_progress = on_progress
        self.work = Work()
        self.counts = Counts()
        """What features of all members counted."""
        self.recorders = [self._new_recorder(group) for group in groups]
        self.members = self._new_members()
        self.loads = Loads(self.env, len(self.members), spec.router.staleness_s)
        self.handover = self._new_handover()
        self.gateway = Gateway(
            self.env,
            spec,
            self.members,
            self._new_router("router"),
            self.loads,
            self.recorders[0],
            source,
            self.is_over,
            self.handover,
        )
        self.failures = Failures(self.env, spec.failures, self.members, self.gateway, spec.seed, self.is_over)
        self.autoscalers = [
            Autoscaler(self.env, scaler, self.members_of(scaler.group), self.gateway, self.is_over)
            for scaler in spec.autoscalers
        ]

    def run(self) -> None:
        """From the first request to the last end."""
        self.source.start(self.env, self.gateway.submit)
        with for_many_members(len(self.members)):
            self.env.run()
        if self._on_progress:
            self._on_progress(self.gateway.done_requests, len(self.source), self.env.now)

    def members_of(self, group: str) -> list[Member]:
        return [member for member in self.members if member.group.name == group]

    def _new_members(self) -> list[Member]:
        """As many of each group as it may ever have; those that are not there from the start are stopped."""
        may_halt = {failure.group for failure in self.spec.failures}
        most = {scaler.group: scaler.max_replicas for scaler in self.spec.autoscalers}
        members: list[Member] = []
        for group, recorder in zip(self.groups, self.recorders, strict=True):
            for number in range(max(group.spec.replicas, most.get(group.name, 0)) * group.ranks):
                if number % group.ranks == 0:
                    mates: list[Member] = []
                    lock_step = self._new_lock_step(group)
                member = self.new_member(
                    self.env,
                    len(members),
                    number,
                    group,
                    recorder,
                    may_halt=group.name in may_halt,
                    is_replaceable=group.name in most,
                    counts=self.counts,
                    work=self.work,
                    mates=mates,
                    lock_step=lock_step,
                )
                if number < group.spec.replicas * group.ranks:
                    member.take_devices()
                else:
                    member.state = State.STOPPED
                members.append(member)
        return members

    def _new_lock_step(self, group: Group) -> LockStep | None:
        if not group.steps_together:
            return None
        assert isinstance(group.setup.timer, ExpertTimer)
        return LockStep(self.env, group.setup.timer)

    def _new_recorder(self, group: Group) -> GroupRecorder:
        def peak_kv_blocks() -> int:
            return max((member.peak_kv_blocks for member in self.members_of(group.name)), default=0)

        made = GroupRecorder if group.setup.speculation is None else SpeculativeGroupRecorder
        on_fold = use_huge_pages if group.spec.replicas >= ENOUGH_MEMBERS else None
        return made(peak_kv_blocks, group.setup.timer, self._report if self._on_progress else None, on_fold)

    def _new_handover(self) -> Handover | None:
        if not self.spec.links:
            return None
        handover = Handover(self.env, self.spec.links, self.members, self._new_router("handover"), self.loads)
        for member in self.members:
            if member.group.spec.role == "prefill":
                member.handover = handover
        return handover

    def _new_router(self, stream: str) -> Router:
        router = self.spec.router
        made = router_named(router.policy, router.options)
        return made(self.loads, random.Random(f"{stream} {self.spec.seed}"), router.options)

    def _report(self, done_requests: int, clock_s: float) -> None:
        assert self._on_progress is not None
        self._on_progress(self.gateway.done_requests, len(self.source), clock_s)
