"""What a measured run says of its engine: recorders' metadata, ``vllm serve --config`` files, SGLang's arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from simserve.config import DTYPE_NAMES
from simserve.errors import WorkloadError

FILES = (
    "meta.json", "settings.json", "settings.yaml", "settings.yml", "config.yaml", "config.yml", "server_args.json",
)  # fmt: skip
"""Names of settings files; where several lie beside a run, the earlier one counts."""

SECTIONS = (
    "engine_kwargs", "engine_args", "server_args", "args", "kv_cache", "model_config", "cache_config",
    "scheduler_config", "parallel_config", "resolved_config", "hardware",
)  # fmt: skip
"""Parts of such a file that are looked into."""

NAMES = {
    "tensor_parallel_size": "tensor_parallel_size", "tp_size": "tensor_parallel_size", "tp": "tensor_parallel_size",
    "max_num_seqs": "max_num_seqs", "max_running_requests": "max_num_seqs",
    "max_num_batched_tokens": "max_num_batched_tokens", "chunked_prefill_size": "chunked_prefill_size",
    "max_model_len": "max_model_len", "context_length": "max_model_len",
    "dtype": "dtype", "quantization": "quantization",
    "kv_cache_dtype": "kv_cache_dtype", "cache_dtype": "kv_cache_dtype",
    "block_size": "block_size", "num_gpu_blocks": "num_gpu_blocks", "num_gpu_blocks_override": "num_gpu_blocks",
    "gpu_memory_utilization": "gpu_memory_utilization", "mem_fraction_static": "gpu_memory_utilization",
    "enable_prefix_caching": "enable_prefix_caching", "enable_chunked_prefill": "enable_chunked_prefill",
    "enforce_eager": "enforce_eager", "async_scheduling": "async_scheduling",
    "long_prefill_token_threshold": "long_prefill_token_threshold",
    "scheduler_reserve_full_isl": "reserve_full_prompt",
    "schedule_policy": "schedule_policy", "schedule_conservativeness": "schedule_conservativeness",
    "model": "model", "model_path": "model", "device_name": "hardware",
}  # fmt: skip
"""Of settings: theirs, and what :class:`simserve.config.EngineOptions` and the command line call them."""

COUNTS = {
    "tensor_parallel_size", "max_num_seqs", "max_num_batched_tokens", "chunked_prefill_size", "max_model_len",
    "block_size", "num_gpu_blocks", "long_prefill_token_threshold",
}  # fmt: skip
FRACTIONS = {"gpu_memory_utilization", "schedule_conservativeness"}
FLAGS = {
    "enable_prefix_caching", "enable_chunked_prefill", "enforce_eager", "async_scheduling", "reserve_full_prompt",
}  # fmt: skip
"""Settings that are whole numbers, numbers, or on and off; the others are words."""

ONE_REPLICA = ("data_parallel_size", "pipeline_parallel_size", "dp_size", "pp_size")
NOT_SIMULATED = ("speculative_config", "speculative_algorithm", "lora_config", "kv_transfer_config")

VLLM_PRESETS = (
    ((0, 2), "vllm-0.1"), ((0, 6), "vllm-0.5"), ((0, 8), "vllm-0.6"), ((0, 14), "vllm-0.11"), ((0, 19), "vllm-0.14"),
    ((0, 22), "vllm-0.19"),
)  # fmt: skip
"""Presets for versions below; V1 is the default engine from 0.8 on."""
NEWEST_VLLM = "vllm-0.22"
SGLANG = "sglang-0.5"
VENDORS = ("nvidia", "geforce", "tesla", "amd")


def settings_beside(file: Path) -> dict[str, Any]:
    """Settings in the files that lie beside a run's ``file``, by the names of ``EngineOptions``, model and hardware.

    Raises :class:`WorkloadError` for a settings file that cannot be read, or that tells of what is not simulated.
    """
    found: dict[str, Any] = {}
    for name in FILES:
        beside = file.parent / name
        if beside.exists() and beside != file:
            found = settings_in(_read(beside), str(beside)) | found
    return found


def settings_in(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings that ``content`` holds, from ``where`` as errors call it; what is outermost counts."""
    found: dict[str, Any] = {}
    for given, value in _flat(content):
        if value in (None, "", [], {}):
            continue
        name = given.replace("-", "_")
        if name in ONE_REPLICA and str(value) not in ("0", "1"):
            raise WorkloadError(f"{where}: the run had {given} {value}, but one replica on one stage is simulated")
        if name in NOT_SIMULATED:
            raise WorkloadError(f"{where}: the run had a {given}, which is not simulated")
        if name == "disable_radix_cache":
            found.setdefault("enable_prefix_caching", not value)
        if name in NAMES:
            found.setdefault(NAMES[name], _ours(NAMES[name], value, where))
    preset = _preset(content)
    return {name: value for name, value in found.items() if value is not None} | (
        {"engine_preset": preset} if preset else {}
    )


def _flat(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values, those of sections last."""
    for name, value in content.items():
        if name not in SECTIONS:
            yield name, value
    for name in SECTIONS:
        if isinstance(content.get(name), Mapping):
            yield from _flat(content[name])


def _ours(name: str, value: Any, where: str) -> Any:
    try:
        return _typed(name, value)
    except ValueError:
        raise WorkloadError(f"{where}: {name} is {value!r}, which is no value of it") from None


def _typed(name: str, value: Any) -> Any:
    """Tables and ``--metadata`` hold numbers as text."""
    if name == "dtype":
        text = str(value).removeprefix("torch.")
        return DTYPE_NAMES.get(text, text)
    if name == "hardware":
        words = [word for word in str(value).split() if word.lower() not in VENDORS]
        return " ".join(words)
    if name in FLAGS:
        if str(value).lower() not in ("true", "false", "1", "0"):
            raise ValueError
        return str(value).lower() in ("true", "1")
    if name in FRACTIONS:
        return float(value)
    if name not in COUNTS:
        return str(value)
    return int(float(value)) if float(value) >= 0 else None  # SGLang's word for none is -1


def _preset(content: Mapping[str, Any]) -> str | None:
    if content.get("sglang_version") or str(content.get("backend", "")).startswith("sglang"):
        return SGLANG
    version = str(content.get("vllm_version") or "").removeprefix("v").split(".")
    if len(version) < 2 or not (version[0].isdigit() and version[1].isdigit()):
        return None
    number = int(version[0]), int(version[1])
    return next((preset for below, preset in VLLM_PRESETS if number < below), NEWEST_VLLM)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise WorkloadError(f"{file} cannot be read as settings of an engine ({reason})") from None
    if not isinstance(content, Mapping):
        raise WorkloadError(f"{file} holds no settings of an engine: it must be names and values")
    return content
