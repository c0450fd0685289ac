"""From what a user asks for to an engine that can run: defaults resolved, memory planned, rooflines compiled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.hardware import HardwareProfile, at_the_edge, slowed, stated_uncertainty
from simserve.latency import (
    AnchoredStepTimer,
    StepTimer,
    anchored_basis,
    anchored_uncertainty,
    anchors_for,
    compiled_step_timer,
)
from simserve.latency.adapters import WORDS, AdapterStepTimer
from simserve.latency.front_end import FRONT_END, FrontEndCosts, front_end_named
from simserve.latency.host import VLLM_V0, VLLM_V1, HostCosts
from simserve.models import ModelSpec
from simserve.scheduling import Scheduler, SchedulerLimits
from simserve.scheduling.adapters import AdapterVllmV1
from simserve.scheduling.speculative import SpeculativeVllmV1
from simserve.simulation.features.adapters import AdapterSetup, adapters_of
from simserve.simulation.features.build import policy_with
from simserve.simulation.features.kv_tiers import TierSizes, tier_sizes
from simserve.simulation.features.speculation import Speculation, speculation_of
from simserve.simulation.formats import Formats, formats_of
from simserve.simulation.memory import with_memory_defaults
from simserve.simulation.parallelism import (
    ALONE,
    Layout,
    Ranks,
    expert_timer,
    layout_of,
    links_in_words,
    new_scheduler,
    pipeline_timer,
    plan_layout,
    with_pipeline_defaults,
)
from simserve.simulation.policies import resolve

LEAST_WHOLE_PROMPTS_BUDGET = {"static": 16384}
"""Tokens in one step at least where prompts are computed whole; 2048, as in vLLM 0.6, for policies not named here."""

MAX_PREFILL_TOKENS = 16384
"""SGLang's budget of a step of prompts where these are not spread over steps."""

BIG_MEMORY_BYTES = 70 * 2**30
"""From this much memory on (and not on an A100) vLLM's API server takes its larger defaults."""


@dataclass(frozen=True)
class EngineSetup:
    """One replica, ready to be built: everything in it is resolved and checked."""

    model: ModelSpec
    hardware: HardwareProfile
    options: EngineOptions
    policy: type[Scheduler]
    formats: Formats
    limits: SchedulerLimits
    block_bytes: int
    weight_bytes: int
    """On each device."""
    timer: StepTimer
    uncertainty: str
    """How far off a predicted step may be, and why, in words."""
    front_end: FrontEndCosts | None
    tiers: TierSizes | None = None
    """Of KV below the device, if there are any."""
    speculation: Speculation | None = None
    adapters: AdapterSetup | None = None
    ranks: Ranks = ALONE
    """Of which this is one."""

    @property
    def policy_name(self) -> str:
        return _given(self.options.policy)

    @property
    def devices(self) -> int:
        """That the model is split over."""
        return self.options.tensor_parallel_size * self.options.pipeline_parallel_size

    @property
    def async_scheduling(self) -> bool:
        return _given(self.options.async_scheduling)

    def new_scheduler(self) -> Scheduler:
        scheduler = new_scheduler(self.policy, self.limits, self.options)
        if self.speculation is not None and isinstance(scheduler, SpeculativeVllmV1):
            scheduler.speculate(self.speculation.drafts)
        if self.adapters is not None and isinstance(scheduler, AdapterVllmV1):
            scheduler.allow_adapters(self.adapters.slots)
        return scheduler


def prepare(
    model: ModelSpec, hardware: HardwareProfile, options: EngineOptions, edge: int = 0, ranks: Ranks = ALONE
) -> EngineSetup:
    """Resolve ``options`` for ``model`` on ``hardware``.

    With ``edge`` 1 everything takes as long as it may, with -1 as little, see :mod:`simserve.hardware.uncertainty`.
    What is prepared is one of ``ranks``.
    Raises :class:`ConfigError` for options that contradict each other, :class:`CapacityError` if weights do not fit,
    :class:`HardwareError` for a number format that the hardware cannot compute.
    """
    policy, options = resolve(with_pipeline_defaults(with_memory_defaults(options, hardware)))
    layout = layout_of(model, policy, options, ranks)
    policy = policy_with(policy, options)
    formats = formats_of(model, hardware, options)
    max_num_seqs, token_budget = _step_limits(model, hardware, policy, options)
    memory = plan_layout(layout, hardware, options, formats, max_num_seqs, token_budget)
    speculation = speculation_of(model, hardware, options)
    if speculation is not None:
        memory = speculation.in_memory(memory, model, hardware, options)
    adapters = adapters_of(model, hardware, options, formats, edge)
    if adapters is not None:
        memory = adapters.in_memory(memory, model, hardware, options)
    num_blocks = options.num_gpu_blocks or memory.num_blocks
    kv_tokens = (num_blocks - 1) * options.block_size
    limits = SchedulerLimits(
        num_blocks=num_blocks,
        block_size=options.block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=token_budget,
        max_model_len=_max_model_len(model, options, kv_tokens, token_budget if policy.whole_prompts else None),
        prefix_caching=_given(options.enable_prefix_caching),
        chunked_prefill=_given(options.enable_chunked_prefill),
        long_prefill_token_threshold=_given(options.long_prefill_token_threshold),
        reserve_full_prompt=bool(options.reserve_full_prompt),
        watermark=_given(options.watermark),
        longest_prefix_first=options.schedule_policy == "lpm",
        schedule_conservativeness=_given(options.schedule_conservativeness),
    )
    most_tokens = _most_tokens_in_a_step(policy, limits)
    timer, uncertainty = _step_times(
        layout, hardware, options, formats, most_tokens, max_num_seqs, edge, speculation, adapters
    )
    front_end = front_end_named(options.front_end)
    if front_end is None and options.api_server_count is not None:
        raise ConfigError("--api-server-count needs a front end whose processes it counts: add --front-end vllm-v1")
    front_end = front_end and front_end.times((1 + FRONT_END) ** edge)
    return EngineSetup(
        model,
        hardware,
        options,
        policy,
        formats,
        limits,
        memory.block_bytes,
        memory.weight_bytes,
        timer,
        uncertainty,
        front_end,
        tier_sizes(options, hardware, memory.block_bytes),
        speculation,
        adapters,
        ranks,
    )


def _step_times(
    layout: Layout,
    hardware: HardwareProfile,
    options: EngineOptions,
    formats: Formats,
    max_tokens: int,
    max_seqs: int,
    edge: int,
    speculation: Speculation | None,
    adapters: AdapterSetup | None,
) -> tuple[StepTimer, str]:
    """The timer, and how far off it may be in words.

    Whole steps in a profile are those of SimServe's own engine: a preset, or host times, ask for another one.
    """
    anchors, model = None, layout.model
    own_host = options.host_step_us is not None or options.host_request_us is not None
    plain = formats.quantization is None and formats.kv_dtype == formats.dtype and not own_host
    alone = options.tensor_parallel_size == 1 and layout.is_plain
    if plain and speculation is None and adapters is None and options.engine_preset is None and alone:
        anchors = anchors_for(model, hardware, formats.dtype)
    if anchors is not None:
        half_width = anchored_uncertainty(model, hardware, anchors)
        then = slowed(hardware, (1 + half_width) ** edge) if edge else hardware
        at_edge = anchors_for(model, then, formats.dtype)
        assert at_edge is not None
        anchored = AnchoredStepTimer(model, then, at_edge, max_tokens=max_tokens, max_seqs=max_seqs)
        return anchored, f"±{half_width:.0%}, {anchored_basis(model, anchors)}"
    then = at_the_edge(hardware, edge, formats.carried) if edge else hardware
    host = _host_costs(options).times(then.host_time_factor)
    if speculation is not None:
        verifier = speculation.timer(model, then, options, formats, host, max_tokens, max_seqs)
        return (
            verifier,
            f"{stated_uncertainty(hardware, formats.carried)}; drafts are accepted as stated, not predicted",
        )
    if len(layout.stages) > 1:
        devices = options.tensor_parallel_size * len(layout.stages)
        pipeline = pipeline_timer(layout, then, options, formats, host, max_tokens, max_seqs, edge)
        return pipeline, stated_uncertainty(hardware, formats.carried) + links_in_words(hardware, devices)
    if not layout.is_plain:
        together = expert_timer(layout, then, options, formats, host, max_tokens, max_seqs, edge)
        devices = options.tensor_parallel_size * layout.ranks.count
        words = f"{links_in_words(hardware, devices) if devices > 1 else ''}, experts picked uniformly"
        return together, stated_uncertainty(hardware, formats.carried) + words
    timer = compiled_step_timer(
        model,
        then,
        dtype=formats.dtype,
        weights=formats.weights,
        kv_dtype=formats.kv_dtype,
        tensor_parallel_size=options.tensor_parallel_size,
        max_tokens=max_tokens,
        max_seqs=max_seqs,
        graphs=not options.enforce_eager,
        host=host if adapters is None else HostCosts(0.0, 0.0, hidden=False, launch_s=host.launch_s),
    )
    if adapters is not None:
        words = f"{stated_uncertainty(hardware, formats.carried)}; {WORDS}"
        return AdapterStepTimer(timer, host, adapters.products), words
    return timer, stated_uncertainty(hardware, formats.carried)


def _host_costs(options: EngineOptions) -> HostCosts:
    """Those of the policy's engine, but for what is said."""
    usual = VLLM_V0 if options.policy == "vllm-v0" else VLLM_V1
    return replace(
        usual,
        step_s=usual.step_s if options.host_step_us is None else options.host_step_us * 1e-6,
        request_s=usual.request_s if options.host_request_us is None else options.host_request_us * 1e-6,
        hidden=_given(options.async_scheduling),
    )


Value = TypeVar("Value")


def _given(value: Value | None) -> Value:
    """An option that :func:`resolve` has filled in."""
    assert value is not None
    return value


def _step_limits(
    model: ModelSpec, hardware: HardwareProfile, policy: type[Scheduler], options: EngineOptions
) -> tuple[int, int]:
    """(max_num_seqs, max_num_batched_tokens): what is given, else the policy's defaults, else vLLM's API server's."""
    large = hardware.memory_bytes >= BIG_MEMORY_BYTES and "a100" not in hardware.name.lower()
    max_num_seqs = options.max_num_seqs or (256 if policy.whole_prompts or not large else 1024)
    budget = options.max_num_batched_tokens
    if budget is None:
        budget = options.chunked_prefill_size
    elif options.chunked_prefill_size not in (None, budget):
        raise ConfigError("--chunked-prefill-size and --max-num-batched-tokens mean the same here; give one of them")
    if budget is None and policy.whole_prompts:
        least = LEAST_WHOLE_PROMPTS_BUDGET.get(_given(options.policy), 2048)
        budget = max(options.max_model_len or model.max_model_len, least) + (0 if policy.alternates else max_num_seqs)
    if budget is None and policy.alternates:
        budget = MAX_PREFILL_TOKENS
    if budget is None:
        budget = max(8192 if large else 2048, max_num_seqs)
    if budget < max_num_seqs and not policy.alternates:
        raise ConfigError(
            f"--max-num-batched-tokens {budget} is less than --max-num-seqs {max_num_seqs}: "
            "every running request needs one token a step; raise the first or lower the second"
        )
    return max_num_seqs, budget


def _most_tokens_in_a_step(policy: type[Scheduler], limits: SchedulerLimits) -> int:
    """Rows that a step can have: its token budget, and what a policy does not count there."""
    most = max(limits.max_num_batched_tokens, limits.max_num_seqs)
    return most if limits.chunked_prefill or policy.whole_prompts else max(most, limits.max_model_len)


def _max_model_len(model: ModelSpec, options: EngineOptions, kv_tokens: int, budget: int | None) -> int:
    """The model's own limit, what the KV cache (and one step) can hold, or what the user states if these allow it."""
    wanted = options.max_model_len
    most = kv_tokens if budget is None else min(kv_tokens, budget)
    if wanted is None:
        return min(model.max_model_len, most)
    if wanted > model.max_model_len:
        raise ConfigError(
            f"--max-model-len {wanted} is more than the {model.max_model_len} tokens that {model.name} was made for; "
            "lower it"
        )
    if wanted > kv_tokens:
        raise ConfigError(
            f"--max-model-len {wanted} is more than the {kv_tokens} tokens that the KV cache holds; "
            "lower it, raise --gpu-memory-utilization or use more devices"
        )
    if wanted > most:
        raise ConfigError(
            f"--max-model-len {wanted} is more than --max-num-batched-tokens {budget}, and policy {options.policy} "
            "computes a prompt in one step; lower the first or raise the second"
        )
    return wanted
