"""What a run on a cluster yields: records and totals of all, and a row for each member, group and tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from simserve.metrics.bill import Bill, bill_for, full_load_s
from simserve.metrics.records import FINISHED, Records, RunDescription, RunTotals
from simserve.simulation.cluster.autoscaler import ScalingDecision
from simserve.simulation.cluster.member import Member
from simserve.simulation.cluster.recorder import Places, merged_records
from simserve.simulation.cluster.spec import TenantSpec
from simserve.simulation.features.build import figures
from simserve.simulation.features.counts import Columns
from simserve.simulation.simulate import describe

if TYPE_CHECKING:
    from simserve.simulation.cluster.simulate import Cluster

SUMMED = (
    "busy_s", "steps", "computed_prefill_tokens", "flops", "bytes_moved", "mean_running_requests", "mixed_busy_s",
    "mixed_flops", "mixed_bytes_moved",
)  # fmt: skip


@dataclass(frozen=True)
class MemberResult:
    """One replica over the whole run; in ``alive_s`` of it its devices were taken, which ``busy_fraction`` is of."""

    name: str
    group: str
    hardware: str
    devices: int
    finished: int
    input_tokens: int
    output_tokens: int
    steps: int
    busy_s: float
    alive_s: float
    peak_kv_blocks: int
    kv_blocks: int
    failures: int
    failed_at_s: tuple[float, ...]
    wasted_prefill_tokens: int
    bill: Bill

    @property
    def busy_fraction(self) -> float:
        return self.busy_s / self.alive_s if self.alive_s else 0.0


@dataclass(frozen=True)
class ClusterResult:
    """Everything shown is computed from these; ``descriptions`` and ``group_totals`` have an entry for each group."""

    records: Records
    places: Places
    totals: RunTotals
    members: tuple[MemberResult, ...]
    group_names: tuple[str, ...]
    descriptions: tuple[RunDescription, ...]
    tenants: tuple[TenantSpec, ...]
    decisions: tuple[ScalingDecision, ...]
    router: str
    moved_tokens: int
    """Of answers, that were computed again as part of the prompt after a failure."""
    figures: Mapping[str, int | float]
    columns: Columns
    """As of :class:`simserve.simulation.simulate.SimulationResult`, of all members."""


def result_of(cluster: Cluster, workload_name: str) -> ClusterResult:
    """What ``cluster``, whose run is over, has done."""
    records, places = merged_records(cluster.recorders)
    totals = _totals(cluster, records)
    descriptions = tuple(describe(group.setup, workload_name) for group in cluster.groups)
    loads = _loads(cluster, records, descriptions)
    run = float(records.arrival_s.min(initial=np.inf)), float(np.nanmax(records.finish_s, initial=0.0))
    served = _served(records, places, len(cluster.members))
    return ClusterResult(
        records=records,
        places=places,
        totals=totals,
        members=tuple(
            _member(member, served[member.index], run, *loads[member.group.name]) for member in cluster.members
        ),
        group_names=tuple(group.name for group in cluster.groups),
        descriptions=descriptions,
        tenants=cluster.spec.tenants,
        decisions=tuple(decision for scaler in cluster.autoscalers for decision in scaler.decisions),
        router=cluster.spec.router.policy,
        moved_tokens=sum(recorder.moved_tokens for recorder in cluster.recorders),
        figures=figures([group.setup for group in cluster.groups], cluster.counts),
        columns=cluster.counts.columns(len(records)),
    )


def _totals(cluster: Cluster, records: Records) -> RunTotals:
    """Of all members together: times, steps and work are sums, so that those of one member are its own."""
    parts = [recorder.totals(records) for recorder in cluster.recorders]
    sums = {name: sum(getattr(part, name) for part in parts) for name in SUMMED}
    return replace(
        parts[0],
        **sums,
        peak_kv_blocks_used=max(part.peak_kv_blocks_used for part in parts),
        front_end_busy_s=max(member.front_end_busy_s for member in cluster.members),
    )


def _loads(
    cluster: Cluster, records: Records, descriptions: Sequence[RunDescription]
) -> dict[str, tuple[RunDescription, float]]:
    """What each group is, and the share of its busy time for which its devices were worth one at full load."""
    loads = {}
    for group, recorder, description in zip(cluster.groups, cluster.recorders, descriptions, strict=True):
        totals = recorder.totals(records)
        full_s = full_load_s(totals, description)
        loads[group.name] = description, full_s / totals.busy_s if totals.busy_s else 0.0
    return loads


def _served(records: Records, places: Places, members: int) -> list[dict[str, int]]:
    """Of each member: requests that it finished, and their tokens."""
    finished = records.status == FINISHED
    member = places.member[finished]
    sums = {
        "finished": np.bincount(member, minlength=members),
        "input_tokens": np.bincount(member, records.input_tokens[finished], members),
        "output_tokens": np.bincount(member, records.output_tokens[finished], members),
    }
    return [{name: int(sums[name][index]) for name in sums} for index in range(members)]


def _member(
    member: Member,
    served: dict[str, int],
    run: tuple[float, float],
    description: RunDescription,
    load: float,
) -> MemberResult:
    """Its devices are taken from the first arrival on at the earliest, to the end of the ``run``, as a lone engine's.

    Its energy is by the ``load`` of its group's steps, which are noted for all of its members together.
    """
    begin_s, end_s = run
    lives = [(start_s, end_s if until_s is None else until_s) for start_s, until_s in member.lives]
    alive_s = sum(max(min(until_s, end_s) - max(start_s, begin_s), 0.0) for start_s, until_s in lives)
    devices = member.group.devices  # its own: a description has those of all ranks that step together
    return MemberResult(
        name=member.name,
        group=member.group.name,
        hardware=member.group.setup.hardware.name,
        devices=devices,
        **served,
        steps=member.steps,
        busy_s=member.busy_s,
        alive_s=alive_s,
        peak_kv_blocks=member.peak_kv_blocks,
        kv_blocks=member.group.setup.limits.num_blocks,
        failures=member.failures,
        failed_at_s=tuple(member.failed_at_s),
        wasted_prefill_tokens=member.wasted_prefill_tokens,
        bill=bill_for(replace(description, devices=devices), alive_s, member.busy_s, member.busy_s * load),
    )
