"""Options that commands share: which model, which hardware, and how the engine is set up, by vLLM's names."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING

from simserve.cli.feature_options import add_feature_arguments
from simserve.config import DTYPE_NAMES, KV_CACHE_DTYPES, PRESETS, QUANTIZATIONS, EngineOptions
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.hardware import HardwareProfile
    from simserve.models import ModelSpec

DEFAULTS = EngineOptions()

SUFFIXES = {"k": 10**3, "m": 10**6, "K": 2**10, "M": 2**20}
"""As vLLM reads them: ``32k`` is 32,000 tokens and ``32K`` is 32,768."""

GB = 2**30
"""Data sheets of accelerators say GB and mean this."""


def add_model_hardware_arguments(
    parser: argparse.ArgumentParser, default_model: str | None = None, default_hardware: str | None = None
) -> None:
    """Add ``--model``, ``--hardware``, ``--npu-num`` and ``--npu-mem``; without defaults, the first two are required.

    Read them with :func:`model_and_hardware`; ``--npu-num`` also tells :func:`engine_options` the devices of a replica.
    """
    group = parser.add_argument_group("model and hardware")
    group.add_argument(
        "--model",
        "--model-name",
        metavar="NAME",
        default=default_model,
        help=f"a model that SimServe ships, or a folder with its config.json ({_default(default_model)})",
    )
    group.add_argument(
        "--hardware",
        metavar="NAME",
        default=default_hardware,
        help=f"a hardware profile that SimServe ships, or a .yaml file ({_default(default_hardware)})",
    )
    group.add_argument("--npu-num", type=whole_number, metavar="N", help="another name for --tensor-parallel-size")
    group.add_argument(
        "--npu-mem", type=number, metavar="GB", help="memory of each device in GB of 2**30 bytes (the profile's)"
    )


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of one engine; read them with :func:`engine_options`."""
    group = parser.add_argument_group("engine", "Names and meanings are vLLM's.")
    group.add_argument(
        "--engine-preset", metavar="NAME", help=f"defaults of an engine version: {', '.join(PRESETS)} (none)"
    )
    group.add_argument(
        "--policy",
        metavar="NAME|FILE.py:CLASS",
        help="vllm-v1, vllm-v0, sglang, sarathi, orca, static, or a class of your own (the preset's, else vllm-v1)",
    )
    group.add_argument(
        "--dtype", choices=DTYPE_NAMES, default="auto", help="of weights, activations and KV cache (auto)"
    )
    group.add_argument(
        "--quantization", "-q", metavar="METHOD", help=f"of weights: {', '.join(QUANTIZATIONS)} (what config.json says)"
    )
    group.add_argument(
        "--kv-cache-dtype",
        metavar="DTYPE",
        default=DEFAULTS.kv_cache_dtype,
        help=f"of the KV cache: auto, {', '.join(KV_CACHE_DTYPES)} ({DEFAULTS.kv_cache_dtype})",
    )
    group.add_argument(
        "--tensor-parallel-size", "-tp", type=whole_number, metavar="N", help="devices that share the model (1)"
    )
    _add_parallel_arguments(group)
    group.add_argument(
        "--max-num-seqs", type=whole_number, metavar="N", help="most requests in one step (vLLM's choice)"
    )
    group.add_argument(
        "--max-num-batched-tokens", type=tokens, metavar="N", help="most tokens in one step (vLLM's choice)"
    )
    group.add_argument("--max-model-len", type=tokens, metavar="N", help="longest sequence in tokens (the model's)")
    _add_memory_arguments(group)
    group.add_argument(
        "--long-prefill-token-threshold",
        type=whole_number,
        metavar="N",
        help="most tokens of one prompt in one step; 0 is no limit (0)",
    )
    _add_switch(group, "--enable-prefix-caching", "reuse KV blocks of prompts that begin alike")
    _add_switch(group, "--enable-chunked-prefill", "spread a long prompt over steps")
    _add_switch(group, "--async-scheduling", "plan a step while the one before it runs")
    _add_front_end_arguments(parser)
    _add_host_arguments(parser)
    add_feature_arguments(parser)
    _add_policy_arguments(parser)


def _add_parallel_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--pipeline-parallel-size",
        "-pp",
        type=whole_number,
        metavar="N",
        default=DEFAULTS.pipeline_parallel_size,
        help="stages that the model's layers are split over, each of so many devices (1)",
    )


def _add_front_end_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("front end", "HTTP, tokenising, detokenising: a server with capacity.")
    group.add_argument(
        "--front-end",
        metavar="NAME|MS:US:US",
        default=DEFAULTS.front_end,
        help="none, vllm-v1, sglang, or ms per request and us per token of prompt and answer, as 4:2:45"
        f" ({DEFAULTS.front_end})",
    )
    group.add_argument("--api-server-count", type=whole_number, metavar="N", help="processes of the front end (1)")


def _add_host_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("host", "What the engine's host does around a step, beside the device.")
    group.add_argument(
        "--host-step-us", type=number, metavar="US", help="microseconds a step (the preset's, else the policy's)"
    )
    group.add_argument(
        "--host-request-us", type=number, metavar="US", help="and for each running request (the preset's, ...)"
    )


def _add_policy_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("options of some policies", "A policy that cannot have an option refuses it.")
    group.add_argument("--scheduling-policy", metavar="fcfs|priority", help="who goes first, vllm-v1 (fcfs)")
    group.add_argument(
        "--scheduler-reserve-full-isl",
        dest="reserve_full_prompt",
        action=argparse.BooleanOptionalAction,
        help="start a prompt only if all of it fits the memory, vllm-v1 (the preset's, else on)",
    )
    group.add_argument(
        "--watermark",
        type=number,
        metavar="FRACTION",
        help="share of the KV blocks that new prompts must leave free, vllm-v1 (0), vllm-v0 and sarathi (0.01)",
    )
    group.add_argument(
        "--chunked-prefill-size",
        type=tokens,
        metavar="N",
        help="most tokens of prompts in one step, sglang (8192), or most tokens of a step, sarathi (512)",
    )
    group.add_argument("--schedule-policy", metavar="fcfs|lpm", help="who goes first, sglang (fcfs)")
    group.add_argument(
        "--schedule-conservativeness", type=number, metavar="X", help="more admits fewer requests, sglang (1)"
    )


def _add_memory_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--gpu-memory-utilization",
        type=number,
        metavar="FRACTION",
        help="share of each device's memory to use (the preset's, else 0.9; sglang goes by the memory)",
    )
    group.add_argument(
        "--num-gpu-blocks",
        "--num-gpu-blocks-override",
        type=whole_number,
        metavar="N",
        help="KV blocks (what memory allows)",
    )
    group.add_argument(
        "--count-graph-memory",
        action=argparse.BooleanOptionalAction,
        help="take the memory of captured graphs from the KV cache, as vLLM does from 0.21 on (the preset's, else no)",
    )
    group.add_argument("--enforce-eager", action="store_true", help="capture no graphs")
    group.add_argument(
        "--block-size",
        type=whole_number,
        metavar="N",
        default=DEFAULTS.block_size,
        help=f"tokens in a KV block ({DEFAULTS.block_size})",
    )


def _add_switch(group: argparse._ArgumentGroup, flag: str, meaning: str) -> None:
    group.add_argument(flag, action=argparse.BooleanOptionalAction, help=f"{meaning} (the preset's, else the policy's)")


def engine_options(args: argparse.Namespace) -> EngineOptions:
    """The engine that ``args`` describe; raises :class:`ConfigError` for values that no engine could run with."""
    given = {field.name: getattr(args, field.name) for field in fields(EngineOptions) if hasattr(args, field.name)}
    return EngineOptions(**(given | {"dtype": DTYPE_NAMES[args.dtype], "tensor_parallel_size": _devices(args)}))


def model_and_hardware(args: argparse.Namespace) -> tuple[ModelSpec, HardwareProfile]:
    """Load what ``args`` name; raises a :class:`SimServeError` if one is not named, not known or cannot be read."""
    model, profile = named_model_and_hardware(args)
    if model is None:
        raise ConfigError("which model? Name one with --model, such as --model meta-llama/Llama-3.1-8B-Instruct")
    if profile is None:
        raise ConfigError("which hardware? Name a profile with --hardware, such as --hardware A100")
    return model, profile


def named_model_and_hardware(args: argparse.Namespace) -> tuple[ModelSpec | None, HardwareProfile | None]:
    """The same where they may be named elsewhere: None for what ``args`` do not name."""
    from simserve.hardware import load_hardware
    from simserve.models import load_model

    memory_bytes = None if args.npu_mem is None else _memory_bytes(args.npu_mem)
    profile = None if args.hardware is None else load_hardware(args.hardware).with_overrides(memory_bytes=memory_bytes)
    return None if args.model is None else load_model(args.model), profile


def _devices(args: argparse.Namespace) -> int:
    devices = given_devices(args)
    return DEFAULTS.tensor_parallel_size if devices is None else devices


def given_devices(args: argparse.Namespace) -> int | None:
    """Devices of a replica, under either name; None if not given."""
    given = {n for n in (args.tensor_parallel_size, args.npu_num) if n is not None}
    if len(given) > 1:
        raise ConfigError(
            f"--npu-num {args.npu_num} and --tensor-parallel-size {args.tensor_parallel_size} mean the same;"
            " give one of them"
        )
    return given.pop() if given else None


def _memory_bytes(gigabytes: float) -> int:
    if not 0 < gigabytes < float("inf"):
        raise ConfigError(f"--npu-mem is memory in GB and must be more than 0, not {gigabytes:g}")
    return int(gigabytes * GB)


def whole_number(text: str) -> int:
    """``text`` as an integer, for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def number(text: str) -> float:
    """``text`` as a float, which may be inf, for argparse."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def tokens(text: str) -> int:
    """``text`` as a number of tokens, for argparse: ``8192``, ``8k`` (8,000) or ``8K`` (8,192)."""
    factor = SUFFIXES.get(text[-1:])
    return whole_number(text) if factor is None else whole_number(text[:-1]) * factor


def _default(value: str | None) -> str:
    return "required" if value is None else value.replace("%", "%%")  # argparse formats help with %
