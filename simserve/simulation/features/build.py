"""Which scheduler and which replica an engine needs for the features that it was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import simpy

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.latency.adapters import AdapterStepTimer
from simserve.latency.expert_parallel import ExpertTimer
from simserve.latency.pipeline import PipelineTimer
from simserve.latency.verification import VerifyingStepTimer
from simserve.scheduling import Pipelined, Scheduler, VllmV1, VllmV1Priority
from simserve.scheduling.adapters import AdapterVllmV1
from simserve.scheduling.fetching import FetchingVllmV1, FetchingVllmV1Priority
from simserve.scheduling.speculative import SpeculativeFetchingVllmV1, SpeculativeVllmV1
from simserve.simulation.features.adapter_replica import AdapterReplica
from simserve.simulation.features.counts import Counts
from simserve.simulation.features.fetching_replica import FetchingReplica
from simserve.simulation.features.speculative_replica import SpeculativeFetchingReplica, SpeculativeReplica
from simserve.simulation.lockstep import LockStep, LockStepRank
from simserve.simulation.pipeline import PipelineReplica
from simserve.simulation.replica import Replica, StepObserver

if TYPE_CHECKING:
    from simserve.simulation.setup import EngineSetup


PLAIN, TIERS, DRAFTS, BOTH = (False, False), (True, False), (False, True), (True, True)
"""Features of an engine: whether it has KV tiers, and whether it speculates."""

SCHEDULERS: Mapping[tuple[bool, bool], Mapping[type[Scheduler], type[Scheduler]]] = {
    TIERS: {VllmV1: FetchingVllmV1, VllmV1Priority: FetchingVllmV1Priority},
    DRAFTS: {VllmV1: SpeculativeVllmV1},
    BOTH: {VllmV1: SpeculativeFetchingVllmV1},
}

REPLICAS: Mapping[tuple[bool, bool], type[Replica]] = {
    PLAIN: Replica, TIERS: FetchingReplica, DRAFTS: SpeculativeReplica, BOTH: SpeculativeFetchingReplica
}  # fmt: skip


def policy_with(policy: type[Scheduler], options: EngineOptions) -> type[Scheduler]:
    """``policy`` with the features that resolved ``options`` ask for; raises :class:`ConfigError`."""
    if options.enable_lora:
        return _with_adapters(policy, options)
    features = (options.kv_offloading_size is not None, options.speculative_config is not None)
    if features == PLAIN:
        return policy
    if features[0] and not options.enable_prefix_caching:
        raise ConfigError(
            "--kv-offloading-size needs the prefix cache, whose blocks it keeps; leave --no-enable-prefix-caching out"
        )
    made = SCHEDULERS[features].get(policy)
    if made is None:
        flag = "--speculative-config" if features[1] else "--kv-offloading-size"
        raise ConfigError(f"{_name_of(policy, options)} cannot have {flag}; leave it out or take policy vllm-v1")
    return made


def _with_adapters(policy: type[Scheduler], options: EngineOptions) -> type[Scheduler]:
    for name in ("kv_offloading_size", "speculative_config"):
        if getattr(options, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"--enable-lora and {flag} cannot be simulated together; leave one of them out")
    if policy is not VllmV1:
        raise ConfigError(f"{_name_of(policy, options)} cannot have --enable-lora; leave it out or take policy vllm-v1")
    return AdapterVllmV1


def _name_of(policy: type[Scheduler], options: EngineOptions) -> str:
    return "--scheduling-policy priority" if policy is VllmV1Priority else f"policy {options.policy}"


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
    made = (
        AdapterReplica
        if setup.adapters is not None
        else REPLICAS[setup.tiers is not None, setup.speculation is not None]
    )
    replica = made(
        env,
        scheduler,
        setup.timer,
        observer,
        async_scheduling=setup.async_scheduling,
        list_decodes=list_decodes,
        may_halt=may_halt,
    )
    if isinstance(replica, AdapterReplica):
        assert isinstance(scheduler, AdapterVllmV1)
        assert isinstance(setup.timer, AdapterStepTimer)
        assert setup.adapters is not None
        replica.connect(scheduler, setup.timer, setup.adapters, counts)
    if isinstance(replica, FetchingReplica):
        assert isinstance(scheduler, FetchingVllmV1)
        assert setup.tiers is not None
        replica.connect(scheduler, setup.tiers, counts)
    if isinstance(replica, SpeculativeReplica):
        assert isinstance(setup.timer, VerifyingStepTimer)
        replica.count_in(counts, setup.timer)
    return replica


def figures(setups: list[EngineSetup], counts: Counts) -> dict[str, int | float]:
    """What features counted, under the keys of results; none for engines without."""
    found: dict[str, int | float] = {}
    if any(setup.adapters for setup in setups):
        found |= _adapter_figures(counts)
    if any(setup.tiers for setup in setups):
        for name in ("kv_host_tokens", "kv_disk_tokens", "kv_stored_tokens", "kv_fetches"):
            found[name] = counts.totals[name]
    if any(setup.speculation for setup in setups):
        for name in ("spec_drafts", "spec_draft_tokens", "spec_accepted_tokens", "spec_rows_in_vain"):
            found[name] = counts.totals[name]
        drafts = counts.totals["spec_drafts"]
        found["spec_mean_acceptance_length"] = 1 + counts.totals["spec_accepted_tokens"] / drafts if drafts else 1.0
    return found


def _adapter_figures(counts: Counts) -> dict[str, int | float]:
    totals = counts.totals
    found: dict[str, int | float] = {
        name: totals[name] for name in ("lora_requests", "lora_loads", "lora_disk_loads", "lora_device_hits")
    }
    found["lora_hit_rate"] = totals["lora_device_hits"] / totals["lora_requests"] if totals["lora_requests"] else 0.0
    found["lora_load_s"] = counts.seconds["lora_load_s"]
    return found
