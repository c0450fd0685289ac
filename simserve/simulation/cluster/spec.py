"""The cluster file: what replicas there are, what joins them, who routes, what fails and what scales.

Every field has its unit in its name. What contradicts itself within the file is refused here, what does not fit a
model or a device where the engines are prepared (``groups.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simserve.errors import ConfigError

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of everything in the file: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GroupSpec(Section):
    """``replicas`` equal engines. Those with role ``prefill`` compute prompts and first tokens, those with role
    ``decode`` the rest; ``mixed`` do both. A replica is ``data_parallel_size`` ranks, each with its own scheduler and
    KV cache; those of a mixture of experts share the experts and step together. ``engine`` holds any other engine
    option under its command line name.
    """

    name: Annotated[str, Field(min_length=1)]
    replicas: Annotated[int, Field(ge=0)] = 1
    role: Literal["mixed", "prefill", "decode"] = "mixed"
    model: str | None = None
    hardware: str | None = None
    memory_gb: Positive | None = None
    tensor_parallel_size: Count | None = None
    pipeline_parallel_size: Count | None = None
    data_parallel_size: Count = 1
    enable_expert_parallel: bool = False
    usd_per_device_hour: Positive | None = None
    """What its user pays; None: the profile's dated price."""
    weight: Positive = 1.0
    """Share of the requests of each replica, under router ``weighted``."""
    engine: dict[str, Any] = {}


class LinkSpec(Section):
    """Brings KV from the group that it comes ``from`` ``to`` another; all their replicas share it.

    What is sent is ``latency_s`` on the way besides. ``layerwise``: a layer's KV is sent while the next is computed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    source: Annotated[str, Field(alias="from")]
    to: str
    bandwidth_gb_per_s: Positive
    latency_s: Seconds = 0.0
    layerwise: bool = False


class RouterSpec(Section):
    """Who gets a request, and which requests get in.

    ``staleness_s`` is how often loads are reported to the router; 0: it always knows. What would be more than
    ``requests_per_replica`` waits in the gateway, in ``order``. What comes while ``max_waiting_requests`` wait there,
    or would make it more than ``max_requests`` requests or ``max_tokens`` tokens (of prompts and answers) in the whole
    cluster, is refused, as with status 429.
    """

    policy: str = "round-robin"
    staleness_s: Seconds = 0.0
    order: Literal["fcfs", "priority", "deadline", "fair"] = "fcfs"
    requests_per_replica: Count | None = None
    max_waiting_requests: Annotated[int, Field(ge=0)] | None = None
    max_requests: Count | None = None
    max_tokens: Count | None = None
    options: dict[str, float] = {}
    """Of the policy, by name."""

    @model_validator(mode="after")
    def _who_waits(self) -> RouterSpec:
        if self.requests_per_replica is None and (self.order != "fcfs" or self.max_waiting_requests is not None):
            what = "max_waiting_requests" if self.order == "fcfs" else f"order {self.order}"
            raise ValueError(f"{what} needs requests_per_replica: without it nobody waits in the gateway")
        return self


class TenantSpec(Section):
    """Part of the requests: each one's tenant is drawn by ``traffic``.

    ``share`` is what order ``fair`` promises, ``priority`` (smaller goes first) what order ``priority`` and an engine
    with ``scheduling_policy: priority`` go by; ``ttft_slo_s`` is the deadline of order ``deadline``, and with
    ``tpot_slo_s`` what counts as good.
    """

    name: Annotated[str, Field(min_length=1)]
    traffic: Positive = 1.0
    share: Positive = 1.0
    priority: int = 0
    ttft_slo_s: Positive | None = None
    tpot_slo_s: Positive | None = None


class FailureSpec(Section):
    """Replicas of ``group`` fail: ``replica`` (counted from 0) ``at_s``, or each of them at random.

    At random the time between a return and the next failure is exponential with a mean of
    ``mean_time_between_failures_s``. After ``down_s`` the replica is back with an empty cache; None: never.
    """

    group: str
    replica: Annotated[int, Field(ge=0)] | None = None
    at_s: Seconds | None = None
    mean_time_between_failures_s: Positive | None = None
    down_s: Seconds | None = None

    @model_validator(mode="after")
    def _when(self) -> FailureSpec:
        if (self.at_s is None) == (self.mean_time_between_failures_s is None):
            raise ValueError("give either at_s or mean_time_between_failures_s")
        if (self.replica is None) == (self.at_s is not None):
            raise ValueError("replica goes with at_s: which one fails then")
        return self


class AutoscalerSpec(Section):
    """``group`` has between ``min_replicas`` and ``max_replicas``, looked at every ``interval_s``.

    There should be just as many as bring ``metric`` to ``target``: ``queue`` is requests in the system per replica,
    ``utilization`` the share of time in which steps ran since the last look, ``ttft`` the 90th percentile of time to
    first token since then in seconds. A new replica starts ``startup_s`` after its weights have come over a link of
    ``load_bandwidth_gb_per_s`` that all who start share. One too many drains, but only once that many were too many for
    ``scale_down_delay_s``.
    """

    group: str
    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Count
    metric: Literal["queue", "utilization", "ttft"] = "queue"
    target: Positive
    interval_s: Positive = 15.0
    scale_down_delay_s: Seconds = 300.0
    startup_s: Seconds = 30.0
    load_bandwidth_gb_per_s: Positive = 5.0

    @model_validator(mode="after")
    def _bounds(self) -> AutoscalerSpec:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is less than min_replicas {self.min_replicas}")
        if self.metric == "utilization" and self.target > 1:
            raise ValueError(f"target {self.target:g} is no utilization: give more than 0 and at most 1")
        return self


class ClusterSpec(Section):
    """A whole cluster file. ``model`` and ``hardware`` hold for groups that do not name their own.

    ``retry`` says what becomes of requests whose replica fails: ``elsewhere`` they go on with the tokens they have, at
    most ``max_retries`` times; ``never`` they fail.
    """

    model: str | None = None
    hardware: str | None = None
    groups: Annotated[tuple[GroupSpec, ...], Field(min_length=1)]
    links: tuple[LinkSpec, ...] = ()
    router: RouterSpec = RouterSpec()
    tenants: tuple[TenantSpec, ...] = ()
    failures: tuple[FailureSpec, ...] = ()
    retry: Literal["elsewhere", "never"] = "elsewhere"
    max_retries: Annotated[int, Field(ge=0)] = 3
    autoscalers: tuple[AutoscalerSpec, ...] = ()
    seed: int = 0

    @model_validator(mode="after")
    def _names(self) -> ClusterSpec:
        _all_different("groups", [group.name for group in self.groups])
        _all_different("tenants", [tenant.name for tenant in self.tenants])
        _all_different("autoscalers", [scaler.group for scaler in self.autoscalers])
        groups = {group.name: group for group in self.groups}
        for index, failure in enumerate(self.failures):
            _known(f"failures[{index}].group", failure.group, groups)
            if failure.replica is not None and failure.replica >= groups[failure.group].replicas:
                count = groups[failure.group].replicas
                raise ValueError(f"failures[{index}].replica {failure.replica} is none of 0 to {count - 1}")
        for index, scaler in enumerate(self.autoscalers):
            _known(f"autoscalers[{index}].group", scaler.group, groups)
        _check_links(self.links, groups)
        scaled = {scaler.group for scaler in self.autoscalers}
        for index, group in enumerate(self.groups):
            if group.replicas == 0 and group.name not in scaled:
                raise ValueError(f"groups[{index}].replicas is 0 and no autoscaler starts any")
        return self


def read_cluster(path: Path) -> ClusterSpec:
    """The cluster in a YAML file; raises :class:`ConfigError` in one sentence that names the field."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the cluster file {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"the cluster file {path} is no YAML: {reason}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"the cluster file {path} must hold keys such as groups, not {type(values).__name__}")
    return cluster_of(values, str(path))


def cluster_of(values: dict[str, Any], source: str) -> ClusterSpec:
    """``values``, which come from ``source``, as a cluster; raises as :func:`read_cluster` does."""
    try:
        return ClusterSpec.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field, text = _field(first["loc"]), first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{source}: {field} is no field of a cluster file; see docs/clusters.md") from None
        raise ConfigError(": ".join(part for part in (source, field, text) if part)) from None


def _field(place: Sequence[int | str]) -> str:
    """``groups[0].role`` for ("groups", 0, "role")."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _check_links(links: Sequence[LinkSpec], groups: dict[str, GroupSpec]) -> None:
    for index, link in enumerate(links):
        for field, name, role in (("from", link.source, "prefill"), ("to", link.to, "decode")):
            _known(f"links[{index}].{field}", name, groups)
            if groups[name].role != role:
                raise ValueError(f"links[{index}].{field}: group '{name}' has role {groups[name].role}, not {role}")
    _all_different("links", [f"{link.source} to {link.to}" for link in links])
    joined = {(link.source, link.to) for link in links}
    for source in groups.values():
        for target in groups.values():
            roles = (source.role, target.role)
            if links and roles == ("prefill", "decode") and (source.name, target.name) not in joined:
                raise ValueError(f"links: none brings KV from '{source.name}' to '{target.name}'; every pair needs one")
    for index, group in enumerate(groups.values()):
        if group.role == "prefill" and group.name not in {link.source for link in links}:
            raise ValueError(f"groups[{index}].role is prefill, and no link brings its KV to a decode group: add links")
        if group.role == "decode" and group.name not in {link.to for link in links}:
            raise ValueError(
                f"groups[{index}].role is decode, and no link brings it KV from a prefill group: add links"
            )


def _all_different(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what}: '{name}' is there twice; give each its own name")


def _known(field: str, name: str, groups: dict[str, GroupSpec]) -> None:
    if name not in groups:
        raise ValueError(f"{field}: there is no group '{name}'; choose one of {', '.join(groups)}")
