"""A cluster's groups as models that can be asked for: one for each model that groups have, served by all of these."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from simserve.config import DEFAULT_MODEL, EngineOptions
from simserve.engines import ClusterEngine
from simserve.engines.base import Engine
from simserve.errors import ConfigError
from simserve.hardware import load_hardware
from simserve.models import ModelSpec, load_model
from simserve.server.answers.habits import habits_in
from simserve.server.models.loadable import GB, Loadable, check_cap, options_of
from simserve.server.service import Service
from simserve.server.settings import AvailableModel, ClusterSection, Settings
from simserve.server.simulated import simulated_over
from simserve.simulation.cluster import ClusterSpec, Group, cluster_of, prepare_groups, read_cluster, router_named


def cluster_models(settings: Settings) -> list[Loadable]:
    """The models of the cluster that ``settings`` describe, that of the first group first, which is the default one.

    Raises :class:`simserve.errors.SimServeError` in one sentence that names the field of what cannot be honoured.
    """
    spec = cluster_in(settings.cluster)
    router_named(spec.router.policy, spec.router.options)
    groups = prepared_groups(spec, settings)
    by_model: dict[str, list[Group]] = {}
    for group in groups:
        by_model.setdefault(group.setup.model.name, []).append(group)
    models = [_loadable(spec, own, settings, is_default=at == 0) for at, own in enumerate(by_model.values())]
    _check_names(models)
    return models


def cluster_in(section: ClusterSection) -> ClusterSpec:
    """The cluster of a file, or as many equal replicas; the router's own keys go before the file's."""
    own = {"policy": section.router, "staleness_s": section.router_staleness}
    own = {key: value for key, value in own.items() if value is not None}
    if section.file is None:
        count = 1 if section.replicas is None else section.replicas
        return cluster_of({"groups": [{"name": "all", "replicas": count}], "router": own}, "cluster")
    spec = read_cluster(section.file)
    return spec.model_copy(update={"router": spec.router.model_copy(update=own)})


def prepared_groups(spec: ClusterSpec, settings: Settings) -> list[Group]:
    """Engines of all groups; what the file leaves open is as the settings say for one engine."""
    memory_gb, most = settings.engine.memory_gb, settings.inference.max_total_tokens
    hardware = load_hardware(settings.engine.hardware).with_overrides(
        memory_bytes=None if memory_gb is None else int(memory_gb * GB)
    )
    options: EngineOptions = options_of(AvailableModel(), settings)
    groups = prepare_groups(spec, load_model(settings.models.default or DEFAULT_MODEL), hardware, options)
    if most is None:
        return groups
    for index, group in enumerate(groups):
        if "max_model_len" in group.spec.engine:
            check_cap(group.setup.limits.max_model_len, most, f"groups[{index}].engine.max_model_len")
    return [_no_longer_than(most, group) for group in groups]


def _no_longer_than(most_tokens: int, group: Group) -> Group:
    setup = group.setup
    longest = min(setup.limits.max_model_len, most_tokens)
    return replace(group, setup=replace(setup, limits=replace(setup.limits, max_model_len=longest)))


def _loadable(spec: ClusterSpec, groups: list[Group], settings: Settings, *, is_default: bool) -> Loadable:
    part, model = part_of(spec, groups), groups[0].setup.model
    time_scale, habits = settings.engine.time_scale, habits_in(settings.answers)
    names = _names(model, spec, groups, settings, is_default=is_default)

    def over(engine: Engine) -> Service:
        return simulated_over(model, engine, names, habits, reasons=settings.answers.reasoning)

    async def load() -> Service:
        return await asyncio.to_thread(lambda: over(ClusterEngine(part, groups, time_scale)))

    longest = min(group.setup.limits.max_model_len for group in groups)
    able = {group.setup.adapters is not None for group in groups}
    if len(able) > 1:
        raise ConfigError(f"cluster: some groups of {model.name} have enable_lora; give it to all of them or to none")
    return Loadable(names, model.name, longest, load, over, has_adapters=True in able)


def _names(
    model: ModelSpec, spec: ClusterSpec, groups: list[Group], settings: Settings, *, is_default: bool
) -> tuple[str, ...]:
    """What the model goes by: its own name, and what the file and the settings call it."""
    if is_default and settings.models.served_names:
        return tuple(dict.fromkeys(settings.models.served_names))
    called = [group.spec.model or spec.model or settings.models.default for group in groups]
    return tuple(dict.fromkeys([model.name, *(name for name in called if name)]))


def part_of(spec: ClusterSpec, groups: list[Group]) -> ClusterSpec:
    """The part of ``spec`` that is about ``groups``: a cluster of its own."""
    names = {group.name for group in groups}
    return spec.model_copy(
        update={
            "groups": tuple(group.spec for group in groups),
            "links": tuple(link for link in spec.links if link.source in names),
            "failures": tuple(failure for failure in spec.failures if failure.group in names),
            "autoscalers": tuple(scaler for scaler in spec.autoscalers if scaler.group in names),
        }
    )


def _check_names(models: list[Loadable]) -> None:
    owners: dict[str, Loadable] = {}
    for model in models:
        for name in model.names:
            if owners.setdefault(name, model) is not model:
                raise ConfigError(f"two models of the cluster go by the name {name}; give one of them another name")
