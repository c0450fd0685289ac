"""The options of ``simserve serve``: each sets one key of the settings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simserve.cli.options import add_engine_arguments, add_model_hardware_arguments, given_devices
from simserve.config import DEFAULT_HARDWARE, DEFAULT_MODEL, EngineOptions

if TYPE_CHECKING:
    from simserve.server.settings import Settings

CONFIG_VARIABLE = "SIMSERVE_CONFIG"


@dataclass(frozen=True)
class Flag:
    """A flag, by all its names, that sets ``key``; ``more`` goes to argparse."""

    key: str
    names: tuple[str, ...]
    help: str
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.key.split("."))


SWITCH = {"action": argparse.BooleanOptionalAction}

SERVER = (
    Flag("server.host", ("--host", "--http-host"), "address to listen on (0.0.0.0, all of this machine)"),
    Flag("server.port", ("--port", "--http-port"), "port to listen on; 0 is any (8000)"),
    Flag("server.workers", ("--workers",), "processes that do HTTP, all before one engine (1)"),
    Flag("server.timeout", ("--timeout",), "longest time for one request, such as 90s; then 504 (none)"),
    Flag("server.max_body_size", ("--max-body-size",), "largest request body, such as 10MB; then 413 (32MiB)"),
    Flag("server.max_waiting_requests", ("--max-waiting-requests",), "longest queue; then 503 (none)"),
    Flag("server.shutdown_grace", ("--shutdown-grace",), "how long SIGTERM lets open requests go on (5s)"),
    Flag("auth.keys", ("--api-key",), "keys that clients must show (none)", {"nargs": "+", "metavar": "KEY"}),
    Flag("logging.level", ("--log-level",), "debug, info, warning or error (info)"),
    Flag("logging.format", ("--log-format",), "text or json (text)"),
    Flag("logging.path", ("--log-file",), "log to this file too"),
)

MODELS = (
    Flag(
        "models.served_names",
        ("--served-model-name",),
        "what clients call the model; answers carry the first name (the model's own)",
        {"nargs": "+", "metavar": "NAME"},
    ),
    Flag(
        "models.preload",
        ("--preload",),
        "models that are there from the start (the default one)",
        {"nargs": "*", "metavar": "NAME"},
    ),
    Flag(
        "models.lora_modules",
        ("--lora-modules",),
        "adapters that are there from the start, with --enable-lora",
        {"nargs": "+", "metavar": "NAME=PATH"},
    ),
    Flag("models.max_loaded", ("--max-loaded",), "models in memory at a time (all)"),
    Flag("models.unload_timeout", ("--unload-timeout",), "unload a model that nobody asked for this long (never)"),
    Flag("models.models_dir", ("--models-dir",), "a folder of models, which are all served"),
)

CLUSTER = (
    Flag("cluster.file", ("--cluster",), "a cluster file: groups, router, failures, ...", {"metavar": "FILE"}),
    Flag("cluster.replicas", ("--replicas",), "as many equal replicas", {"metavar": "N"}),
    Flag(
        "cluster.router",
        ("--router",),
        "who gets a request: round-robin, least-requests, ..., or a class of your own (the file's, else round-robin)",
        {"metavar": "NAME|FILE.py:CLASS"},
    ),
    Flag(
        "cluster.router_staleness",
        ("--router-staleness",),
        "how old loads are that it sees, as 50ms (0)",
        {"metavar": "TIME"},
    ),
)

ANSWERS = (
    Flag("engine.type", ("--engine",), "what answers: simulated, or torch, a real model (simulated)"),
    Flag("engine.device", ("--device",), "where --engine torch runs, cpu or cuda (cuda if there is one)"),
    Flag("engine.threads", ("--threads",), "CPU threads of --engine torch (torch's choice, 1 for tiny models)"),
    Flag("engine.time_scale", ("--time-scale",), "how much faster than real time; inf answers at once (1)"),
    Flag("answers.mode", ("--response-mode",), "what simulated answers say: random, echo or dataset (random)"),
    Flag("answers.dataset", ("--response-dataset",), "file of answers for --response-mode dataset"),
    Flag("answers.length", ("--response-length",), "how long answers are, such as lognormal:128:0.8 (max_tokens)"),
    Flag("answers.reasoning", ("--reasoning",), "models reason before they answer (those known to)", SWITCH),
    Flag("inference.max_total_tokens", ("--max-total-tokens",), "longest sequence of any model (the model's)"),
    Flag("inference.max_input_tokens", ("--max-input-tokens",), "longest prompt (what the model takes)"),
    Flag("inference.streaming_default", ("--streaming-default",), "stream to clients that do not say (no)", SWITCH),
    Flag("inference.optimize_first_token", ("--optimize-first-token",), "prompts before answers (no)", SWITCH),
)

FAILURES = (
    Flag("failures.enabled", ("--enable-failures",), "heed X-Return-Error: STATUS (with --fail-rate)", SWITCH),
    Flag("failures.rate", ("--fail-rate",), "share of requests that fail, such as 0.01 (0)"),
    Flag("failures.statuses", ("--fail-with",), "how they fail (503)", {"nargs": "+", "metavar": "STATUS"}),
    Flag("failures.latency_jitter", ("--latency-jitter",), "hold requests up by a random time up to this (0)"),
    Flag("failures.seed", ("--fail-seed",), "makes the draws repeatable"),
)

GROUPS = {
    "server": SERVER,
    "several models": MODELS,
    "cluster (docs/clusters.md)": CLUSTER,
    "answers": ANSWERS,
    "failures on purpose": FAILURES,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve serve``; those not given are None."""
    parser.add_argument("--config", metavar="FILE", help=f"a YAML file of settings (${CONFIG_VARIABLE})")
    add_model_hardware_arguments(parser, default_model=DEFAULT_MODEL, default_hardware=DEFAULT_HARDWARE)
    for title, flags in GROUPS.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            more = flag.more or {"metavar": flag.keys[1].upper()}
            group.add_argument(*flag.names, dest=flag.key, help=flag.help, default=None, **more)
    group = parser.add_argument_group("habits")
    group.add_argument("--verbose", action="store_true", help="log details too: --log-level debug")
    group.add_argument("--idle-mode", action="store_true", help="generate no traffic, which is what serve does anyway")
    add_engine_arguments(parser)
    options = (option.name for option in fields(EngineOptions))
    parser.set_defaults(model=None, hardware=None, **dict.fromkeys(options))


def read_settings(args: argparse.Namespace) -> Settings:
    """Settings from the file, the environment and the command line, the strongest last.

    Raises :class:`simserve.errors.ConfigError` for what cannot be honoured.
    """
    from simserve.server.settings import command_line_layer, environment_layer, file_layer, load_settings

    path = args.config or os.environ.get(CONFIG_VARIABLE)
    files = [file_layer(Path(path))] if path else []
    return load_settings([*files, environment_layer(os.environ), command_line_layer(_given(args))])


def _given(args: argparse.Namespace) -> Iterator[tuple[str, tuple[str, ...], object]]:
    """Each flag with its key and what was given, None if nothing was."""
    values = vars(args)
    yield "--model", ("models", "default"), args.model
    yield "--hardware", ("engine", "hardware"), args.hardware
    yield "--npu-mem", ("engine", "memory_gb"), args.npu_mem
    yield "--verbose", ("logging", "level"), "debug" if args.verbose else None
    for flag in (flag for flags in GROUPS.values() for flag in flags):
        if values[flag.key] is not None:
            yield flag.names[0], flag.keys, values[flag.key]
    for name in (option.name for option in fields(EngineOptions)):
        value = given_devices(args) if name == "tensor_parallel_size" else values[name]
        keys = ("inference", "max_batch_size") if name == "max_num_seqs" else ("engine", name)
        yield f"--{name.replace('_', '-')}", keys, value
