"""From groups in a cluster file to engines that can run: each prepared once, however many replicas it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from simserve.config import EngineOptions
from simserve.errors import ConfigError, SimServeError
from simserve.hardware import HardwareProfile, load_hardware
from simserve.latency.expert_parallel import ExpertTimer
from simserve.models import ModelSpec, load_model
from simserve.simulation.cluster.spec import ClusterSpec, GroupSpec
from simserve.simulation.parallelism import Ranks
from simserve.simulation.setup import EngineSetup, prepare

GB = 2**30
OPTION_NAMES = frozenset(field.name for field in fields(EngineOptions))
PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size")
"""Engine options that are fields of a group themselves."""

Loader = Callable[[str], Any]


@dataclass(frozen=True)
class Group:
    """A group that can run: its entry in the file, and the engine that each of its replicas is."""

    spec: GroupSpec
    setup: EngineSetup

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def kv_bytes_per_token(self) -> int:
        """Of all devices of a replica together."""
        setup = self.setup
        return setup.model.kv_bytes_per_token(setup.formats.kv_dtype)

    @property
    def ranks(self) -> int:
        """Engines of one replica."""
        return self.spec.data_parallel_size

    @property
    def steps_together(self) -> bool:
        """Whether the ranks of a replica wait for each other in every step."""
        return self.ranks > 1 and isinstance(self.setup.timer, ExpertTimer)

    @property
    def devices(self) -> int:
        """Of one rank."""
        return self.setup.devices


def prepare_groups(
    spec: ClusterSpec, model: ModelSpec | None, hardware: HardwareProfile | None, options: EngineOptions, edge: int = 0
) -> list[Group]:
    """All groups of ``spec``; ``model``, ``hardware`` and ``options`` are for what it does not say.

    Raises :class:`ConfigError` in one sentence that names the group and its field; for ``edge`` see
    :func:`simserve.simulation.setup.prepare`.
    """
    models: dict[str, ModelSpec] = {}
    profiles: dict[str, HardwareProfile] = {}
    groups = []
    for index, group in enumerate(spec.groups):
        field = f"groups[{index}]"
        named_model, named_hardware = group.model or spec.model, group.hardware or spec.hardware
        own_model = _named(f"{field}.model", named_model, models, load_model) or model
        own_hardware = _named(f"{field}.hardware", named_hardware, profiles, load_hardware) or hardware
        if own_model is None:
            raise ConfigError(f"{field}.model is not given: name one there, for the whole file, or as --model")
        if own_hardware is None:
            raise ConfigError(f"{field}.hardware is not given: name one there, for the whole file, or as --hardware")
        if group.memory_gb is not None:
            own_hardware = own_hardware.with_overrides(int(group.memory_gb * GB))
        own_hardware = own_hardware.priced(group.usd_per_device_hour)
        own_options = _options(field, group, options)
        try:
            ranks = Ranks(group.data_parallel_size, group.enable_expert_parallel)
            groups.append(Group(group, prepare(own_model, own_hardware, own_options, edge, ranks)))
        except SimServeError as error:
            raise type(error)(f"{field} ({group.name}): {error}") from None
    _check_roles(spec, groups)
    _check_scaling(spec, groups)
    return groups


def _check_roles(spec: ClusterSpec, groups: list[Group]) -> None:
    by_name = {group.name: group for group in groups}
    for index, group in enumerate(groups):
        if group.spec.role == "decode" and group.setup.policy_name != "vllm-v1":
            raise ConfigError(
                f"groups[{index}].role decode needs policy vllm-v1, which can go on from another's KV, and not "
                f"{group.setup.policy_name}"
            )
    for index, link in enumerate(spec.links):
        ends = [by_name[name].setup for name in (link.source, link.to)]
        models, kinds = ({end.model.name for end in ends}, {end.formats.kv_dtype for end in ends})
        prefill, decode = (end.new_scheduler().most_tokens for end in ends)
        if prefill > decode:
            raise ConfigError(
                f"links[{index}]: {link.source} takes sequences of {prefill} tokens, {link.to} of {decode}: give both "
                "the same max_model_len"
            )
        if len(models) > 1 or len(kinds) > 1:
            raise ConfigError(
                f"links[{index}] joins {link.source} and {link.to}, whose KV differs "
                f"({' and '.join(sorted(models if len(models) > 1 else kinds))}): give both the same model and KV dtype"
            )


def _check_scaling(spec: ClusterSpec, groups: list[Group]) -> None:
    ranks = {group.name: group.ranks for group in groups}
    for index, scaler in enumerate(spec.autoscalers):
        if ranks[scaler.group] > 1:
            raise ConfigError(
                f"autoscalers[{index}].group: '{scaler.group}' has data_parallel_size {ranks[scaler.group]}, and only "
                "groups of one rank can be scaled; give it replicas instead"
            )


def _named(field: str, name: str | None, known: dict[str, Any], load: Loader) -> Any:
    if name is None:
        return None
    if name not in known:
        try:
            known[name] = load(name)
        except SimServeError as error:
            raise type(error)(f"{field}: {error}") from None
    return known[name]


def _options(field: str, group: GroupSpec, options: EngineOptions) -> EngineOptions:
    for name in group.engine:
        if name in PARALLEL:
            raise ConfigError(f"{field}.engine.{name} is a field of the group itself: write {field}.{name}")
        if name not in OPTION_NAMES:
            raise ConfigError(f"{field}.engine.{name} is no engine option: write them as on the command line, with _")
    own = {name: getattr(group, name) for name in PARALLEL if getattr(group, name) is not None}
    try:
        return replace(options, **group.engine, **own)
    except ConfigError as error:
        raise ConfigError(f"{field}.engine: {error}") from None
    except TypeError:
        raise ConfigError(
            f"{field}.engine holds a value of the wrong kind; numbers and words go without quotes"
        ) from None
