"""Which scheduler and which replica an engine needs for the features that it was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import simpy

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.latency.expert_parallel import ExpertTimer
from simserve.latency.pipeline import PipelineTimer
from simserve.scheduling import Pipelined, Scheduler, VllmV1, VllmV1Priority
from simserve.scheduling.fetching import FetchingVllmV1, FetchingVllmV1Priority
from simserve.simulation.features.counts import Counts
from simserve.simulation.features.fetching_replica import FetchingReplica
from simserve.simulation.lockstep import LockStep, LockStepRank
from simserve.simulation.pipeline import PipelineReplica
from simserve.simulation.replica import Replica, StepObserver

if TYPE_CHECKING:
    from simserve.simulation.setup import EngineSetup


def policy_with(policy: type[Scheduler], options: EngineOptions) -> type[Scheduler]:
    """``policy`` with the features that resolved ``options`` ask for; raises :class:`ConfigError`."""
    if options.kv_offloading_size is None:
        return policy
    if not options.enable_prefix_caching:
        raise ConfigError(
            "--kv-offloading-size needs the prefix cache, whose blocks it keeps; leave --no-enable-prefix-caching out"
        )
    if policy is VllmV1Priority:
        return FetchingVllmV1Priority
    if policy is VllmV1:
        return FetchingVllmV1
    raise ConfigError(f"policy {options.policy} cannot have --kv-offloading-size; leave it out or take vllm-v1")


def new_replica(
    setup: EngineSetup,
    env: simpy.Environment,
    scheduler: Scheduler,
    observer: StepObserver,
    counts: Counts,
    *,
    list_decodes: bool = False,
    may_halt: bool = False,
    lock_step: LockStep | None = None,
    rank: int = 0,
) -> Replica:
    """The replica that ``setup`` asks for, over its own ``scheduler``; what its features do is added to ``counts``.

    With ``lock_step`` it is number ``rank`` of those that this holds together.
    """
    if isinstance(setup.timer, PipelineTimer):
        assert isinstance(scheduler, Pipelined)
        return PipelineReplica(env, scheduler, setup.timer, observer, list_decodes=list_decodes)
    if lock_step is not None:
        assert isinstance(setup.timer, ExpertTimer)
        return LockStepRank(
            env,
            scheduler,
            setup.timer,
            observer,
            lock_step,
            rank,
            async_scheduling=setup.async_scheduling,
            list_decodes=list_decodes,
            may_halt=may_halt,
        )
    made = Replica if setup.tiers is None else FetchingReplica
    replica = made(
        env,
        scheduler,
        setup.timer,
        observer,
        async_scheduling=setup.async_scheduling,
        list_decodes=list_decodes,
        may_halt=may_halt,
    )
    if isinstance(replica, FetchingReplica):
        assert isinstance(scheduler, FetchingVllmV1)
        assert setup.tiers is not None
        replica.connect(scheduler, setup.tiers, counts)
    return replica


def figures(setups: list[EngineSetup], counts: Counts) -> dict[str, int | float]:
    """What features counted, under the keys of results; none for engines without."""
    found: dict[str, int | float] = {}
    if any(setup.tiers for setup in setups):
        for name in ("kv_host_tokens", "kv_disk_tokens", "kv_stored_tokens", "kv_fetches"):
            found[name] = counts.totals[name]
    return found
