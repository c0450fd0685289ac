"""One replica of a cluster that is live, as metrics and status look at it; and what all of them have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from simserve.engines.adapters import Names, lora_status
from simserve.engines.base import EngineStatus
from simserve.engines.clock import SimulatedClock
from simserve.engines.reports import EngineObserver
from simserve.scheduling.fetching import FetchingVllmV1
from simserve.simulation.cluster import Group, Member, State
from simserve.simulation.simulate import describe

Labels = Mapping[str, Any]

WITH_DEVICES = (State.READY, State.DRAINING, State.DOWN)
"""States in which a replica's memory counts."""


class LiveReplica:
    """The replica that ``member`` is, whose group has ``labels``; counts what its requests came to."""

    def __init__(self, member: Member, labels: Labels, clock: SimulatedClock, adapter_names: Names) -> None:
        self.member = member
        self._labels = labels
        self._adapter_names = adapter_names
        self.observers: list[EngineObserver] = []
        self.completed = self.aborted = self.preemptions = 0
        self._clock = clock

    @property
    def name(self) -> str:
        """``fast/3``: unique in the cluster."""
        return self.member.name

    @property
    def index(self) -> int:
        """Among all replicas of the cluster, from 0."""
        return self.member.index

    @property
    def state(self) -> str:
        """``ready``, or why it gets no requests."""
        return self.member.state.value

    @property
    def failures(self) -> int:
        """How often it has failed."""
        return self.member.failures

    @property
    def has_engine(self) -> bool:
        """Whether its devices are taken, and its KV blocks count."""
        return self.member.state in WITH_DEVICES

    def observe(self, observer: EngineObserver) -> None:
        """Tell ``observer`` of its steps, and of requests that end where it had them last."""
        self.observers.append(observer)

    def describe(self) -> Labels:
        """Labels of its engine; see :class:`simserve.metrics.records.RunDescription`."""
        return self._labels

    def status(self) -> EngineStatus:
        """Of this replica alone."""
        member = self.member
        scheduler, setup = member.scheduler, member.group.setup
        blocks = scheduler.blocks
        fetching = scheduler.fetching_requests if isinstance(scheduler, FetchingVllmV1) else 0
        return EngineStatus(
            clock_s=self._clock.now_s(),
            waiting_requests=len(scheduler.waiting) + member.ingesting_requests + fetching,
            running_requests=len(scheduler.running),
            completed_requests=self.completed,
            aborted_requests=self.aborted,
            steps=member.steps,
            inflight_batches=int(member.replica.step_in_flight),
            kv_blocks_total=blocks.usable_blocks,
            kv_blocks_used=blocks.used_blocks,
            kv_block_bytes=setup.block_bytes * setup.devices,
            extra=lora_status(scheduler, member.replica, self._adapter_names),
        )

    def row(self) -> dict[str, object]:
        """What ``GET /status`` says of it."""
        member, now = self.member, self.status()
        return {
            "name": self.name,
            "engine": self.index,
            "group": member.group.name,
            "role": member.group.spec.role,
            "state": self.state,
            "requests": len(member.held),
            "pending_requests": now.waiting_requests,
            "running_requests": now.running_requests,
            "completed_requests": now.completed_requests,
            "aborted_requests": now.aborted_requests,
            "kv_blocks": {
                "total": now.kv_blocks_total,
                "used": now.kv_blocks_used,
                "available": now.kv_blocks_total - now.kv_blocks_used,
            },
            "steps": now.steps,
            "busy_s": member.busy_s,
            "preemptions": self.preemptions,
            "failures": member.failures,
            "wasted_prefill_tokens": member.wasted_prefill_tokens,
            **now.extra,
        }


def labels_of(group: Group) -> Labels:
    """See :class:`simserve.metrics.records.RunDescription`."""
    return asdict(describe(group.setup, "live"))


def labels_of_all(groups: Sequence[Group], router: str, time_scale: float) -> dict[str, object]:
    """Labels of a whole cluster: what differs between groups is told with " + " between, and ``groups`` has each."""
    each = [labels_of(group) for group in groups]
    together = {key: _together([labels[key] for labels in each]) for key in each[0]}
    rows = [
        {"name": group.name, "replicas": group.spec.replicas, "role": group.spec.role, **labels}
        for group, labels in zip(groups, each, strict=True)
    ]
    return {
        **together,
        "calibrated": all(labels["calibrated"] for labels in each),
        "engine": "simulated",
        "time_scale": time_scale,
        "router": router,
        "replicas": sum(group.spec.replicas for group in groups),
        "groups": rows,
    }


def _together(values: list[Any]) -> Any:
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else " + ".join(map(str, different))
