"""How devices share the model: pipeline stages and experts over ranks, their memory and their step times."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simserve.config import EngineOptions
from simserve.errors import CapacityError, ConfigError
from simserve.hardware import HardwareProfile
from simserve.latency import HostCosts, MemoryPlan, compiled_step_timer
from simserve.latency.expert_parallel import ExpertTimer
from simserve.latency.links import LINK_UNCERTAINTY
from simserve.latency.pipeline import PipelineTimer, stage_sends_s
from simserve.models import ModelSpec, SplitExperts, split_into_stages, with_experts_over
from simserve.scheduling import Pipelined, PipelinedPriority, Scheduler, SchedulerLimits, VllmV1, VllmV1Priority
from simserve.simulation.formats import Formats
from simserve.simulation.memory import plan_for

PIPELINED: dict[type[Scheduler], type[Pipelined]] = {VllmV1: Pipelined, VllmV1Priority: PipelinedPriority}
"""What policies are with several batches in flight."""


@dataclass(frozen=True)
class Ranks:
    """``count`` engines that share a model's experts, whole ones on each device if ``expert_parallel``.

    Each has its own scheduler and KV cache. Of a dense model they share nothing.
    """

    count: int = 1
    expert_parallel: bool = False


ALONE = Ranks()


@dataclass(frozen=True)
class Layout:
    """``model`` as the devices of a replica hold it: one model per pipeline stage, itself where there is one."""

    model: ModelSpec
    stages: tuple[ModelSpec, ...]
    ranks: Ranks = ALONE

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but tensor parallelism."""
        return len(self.stages) == 1 and not isinstance(self.model, SplitExperts)


def with_pipeline_defaults(options: EngineOptions) -> EngineOptions:
    """``options`` with what several stages settle: as in vLLM up to 0.14, they exclude asynchronous scheduling."""
    if options.pipeline_parallel_size == 1:
        return options
    if options.async_scheduling:
        raise ConfigError(
            "--async-scheduling and --pipeline-parallel-size contradict: a pipeline has a batch in flight for each "
            "stage instead; leave out the first"
        )
    return replace(options, async_scheduling=False)


def layout_of(model: ModelSpec, policy: type[Scheduler], options: EngineOptions, ranks: Ranks) -> Layout:
    """How ``options`` lay ``model`` out; raises :class:`SimServeError` subclasses for what cannot be."""
    stages = options.pipeline_parallel_size
    for name in ("kv_offloading_size", "speculative_config", "enable_lora") if stages > 1 else ():
        if getattr(options, name) not in (None, False):
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{flag} and --pipeline-parallel-size cannot be simulated together; leave one of them out"
            )
    if stages > 1 and policy not in PIPELINED:
        raise ConfigError(
            f"--pipeline-parallel-size {stages} needs policy vllm-v1, which can plan a batch while others are in "
            f"flight, and not {options.policy}"
        )
    if ranks == ALONE:
        return Layout(model, split_into_stages(model, stages))
    split = with_experts_over(model, options.tensor_parallel_size * ranks.count, whole=ranks.expert_parallel)
    if not isinstance(split, SplitExperts):
        return Layout(model, split_into_stages(model, stages), ranks)
    if stages > 1:
        raise ConfigError(
            f"pipeline_parallel_size {stages}: experts that are split over data-parallel ranks, or expert parallel, "
            "cannot be simulated in several stages; leave one of both out"
        )
    if ranks.count > 1 and options.kv_offloading_size is not None:
        raise ConfigError("kv_offloading_size: ranks that share experts cannot have it; leave it out")
    if options.speculative_config is not None:
        raise ConfigError(
            "speculative_config: experts that are split over ranks, or expert parallel, cannot be simulated with it; "
            "leave it out"
        )
    return Layout(split, (split,), ranks)


def new_scheduler(policy: type[Scheduler], limits: SchedulerLimits, options: EngineOptions) -> Scheduler:
    """The scheduler of one replica."""
    if options.pipeline_parallel_size > 1:
        return PIPELINED[policy](limits, options.pipeline_parallel_size)
    return policy(limits)


def plan_layout(
    layout: Layout,
    hardware: HardwareProfile,
    options: EngineOptions,
    formats: Formats,
    max_num_seqs: int,
    token_budget: int,
) -> MemoryPlan:
    """The memory of the devices that can hold the fewest KV blocks: all stages have as many. See :func:`plan_for`."""
    plans = []
    for number, stage in enumerate(layout.stages):
        try:
            plans.append(plan_for(stage, hardware, options, formats, max_num_seqs, token_budget))
        except CapacityError as error:
            if len(layout.stages) == 1:
                raise
            raise CapacityError(f"pipeline stage {number}: {error}") from None
    return min(plans, key=lambda plan: plan.num_blocks)


def pipeline_timer(
    layout: Layout,
    hardware: HardwareProfile,
    options: EngineOptions,
    formats: Formats,
    host: HostCosts,
    max_tokens: int,
    max_seqs: int,
    edge: int,
) -> PipelineTimer:
    """Step times of the stages of ``layout``; ``edge`` as in :func:`simserve.simulation.setup.prepare`."""
    devices = options.tensor_parallel_size
    stages = [
        compiled_step_timer(
            stage,
            hardware,
            dtype=formats.dtype,
            weights=formats.weights,
            kv_dtype=formats.kv_dtype,
            tensor_parallel_size=devices,
            max_tokens=max_tokens,
            max_seqs=max_seqs,
            graphs=not options.enforce_eager,
            host=replace(host, step_s=0.0, request_s=0.0),
        )
        for stage in layout.stages
    ]
    sends_s = stage_sends_s(
        layout.model,
        hardware,
        dtype=formats.dtype,
        tensor_parallel_size=devices,
        pipeline_parallel_size=len(stages),
        max_tokens=max_tokens,
    )
    return PipelineTimer(stages, (sends_s * (1 + LINK_UNCERTAINTY) ** edge).tolist(), host)


def expert_timer(
    layout: Layout,
    hardware: HardwareProfile,
    options: EngineOptions,
    formats: Formats,
    host: HostCosts,
    max_tokens: int,
    max_seqs: int,
    edge: int,
) -> ExpertTimer:
    """Step times of ranks that share experts; ``edge`` as in :func:`simserve.simulation.setup.prepare`."""
    assert isinstance(layout.model, SplitExperts)
    return ExpertTimer(
        layout.model,
        hardware,
        dtype=formats.dtype,
        weights=formats.weights,
        kv_dtype=formats.kv_dtype,
        tensor_parallel_size=options.tensor_parallel_size,
        data_parallel_size=layout.ranks.count,
        max_tokens=max_tokens,
        max_seqs=max_seqs,
        graphs=not options.enforce_eager,
        host=host,
        link_factor=(1 + LINK_UNCERTAINTY) ** edge,
    )


def links_in_words(hardware: HardwareProfile, devices: int) -> str:
    """What is to be said of times on links that nobody measured, after the uncertainty of operators."""
    return (
        f", {hardware.link_between(devices).name} between devices ±{LINK_UNCERTAINTY:.0%} (data sheet, never measured)"
    )
