"""Which scheduling policy an engine has and which options it honours: presets, policies' defaults, own policies."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

from simserve.config import PRESETS, EngineOptions
from simserve.errors import ConfigError
from simserve.scheduling import POLICIES, Options, Scheduler, VllmV1, VllmV1Priority
from simserve.simulation.plugins import module_at

DEFAULT_POLICY = "vllm-v1"

NOT_USED: Options = {
    "enable_prefix_caching": False,
    "enable_chunked_prefill": False,
    "async_scheduling": False,
    "long_prefill_token_threshold": 0,
    "scheduling_policy": "fcfs",
    "schedule_policy": "fcfs",
    "schedule_conservativeness": 1.0,
    "watermark": 0.0,
    "reserve_full_prompt": None,
    "chunked_prefill_size": None,
}
"""Options that not every policy has, with what a policy without them does anyway; None if there is no such thing."""


def resolve(options: EngineOptions) -> tuple[type[Scheduler], EngineOptions]:
    """The policy's class, and ``options`` with what the preset and the policy add where the user says nothing.

    Raises :class:`ConfigError` for an unknown policy, and for an option that the policy cannot honour.
    """
    options = _with_preset(options)
    name = options.policy or DEFAULT_POLICY
    policy = policy_named(name)
    resolved: dict[str, object] = {"policy": name}
    for option, not_used in NOT_USED.items():
        given = getattr(options, option)
        if option in policy.options:
            resolved[option] = policy.options[option] if given is None else given
            continue
        resolved[option] = policy.fixed.get(option, not_used)
        if given is not None and given != resolved[option]:
            raise ConfigError(f"policy {name} {_refusal(option, given)}; leave it out or choose another --policy")
    resolved["max_num_seqs"] = options.max_num_seqs or policy.options.get("max_num_seqs")
    if options.chunked_prefill_size is None and options.max_num_batched_tokens is not None:
        resolved["chunked_prefill_size"] = None
    if not resolved["enable_chunked_prefill"]:
        if options.chunked_prefill_size is not None:
            raise ConfigError("--chunked-prefill-size and --no-enable-chunked-prefill contradict; give one of them")
        resolved["chunked_prefill_size"] = None
    return _by_priority(policy, name, options), replace(options, **resolved)  # type: ignore[arg-type]


def policy_named(name: str) -> type[Scheduler]:
    """The policy that ``--policy`` names: one that ships, or ``file.py:Class``; raises :class:`ConfigError`."""
    if name in POLICIES:
        return POLICIES[name]
    path, colon, class_name = name.rpartition(":")
    if not colon:
        raise ConfigError(
            f"unknown policy '{name}'; choose one of {', '.join(POLICIES)}, or name an own one as file.py:Class"
        )
    policy = getattr(module_at(Path(path), "policy"), class_name, None)
    if not (inspect.isclass(policy) and issubclass(policy, Scheduler)):
        raise ConfigError(f"{path} has no class {class_name} that derives from simserve.scheduling.Scheduler")
    if inspect.isabstract(policy):
        raise ConfigError(
            f"{class_name} in {path} does not say what a step computes: give it a method plan(self, plan)"
        )
    return policy


def _with_preset(options: EngineOptions) -> EngineOptions:
    if options.engine_preset is None:
        return options
    preset = PRESETS[options.engine_preset]
    if options.policy not in (None, preset["policy"]):
        raise ConfigError(
            f"--engine-preset {options.engine_preset} has policy {preset['policy']} and not {options.policy}; "
            "give one of them"
        )
    unset = {option: value for option, value in preset.items() if getattr(options, option) is None}
    return replace(options, **unset)  # type: ignore[arg-type]


def _by_priority(policy: type[Scheduler], name: str, options: EngineOptions) -> type[Scheduler]:
    if options.scheduling_policy != "priority":
        return policy
    if policy is not VllmV1:
        raise ConfigError(f"policy {name} {_refusal('scheduling_policy', 'priority')}; leave it out")
    return VllmV1Priority


def _refusal(option: str, given: object) -> str:
    flag = "--scheduler-reserve-full-isl" if option == "reserve_full_prompt" else f"--{option.replace('_', '-')}"
    if isinstance(given, bool):
        return f"cannot have {flag if given else flag.replace('--', '--no-', 1)}"
    return f"cannot have {flag} {given}"
