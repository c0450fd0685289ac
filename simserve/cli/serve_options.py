"""The options of ``simserve serve``: each sets one key of the settings, whose description is its help."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from simserve.cli.options import add_engine_arguments, add_model_hardware_arguments, given_devices
from simserve.config import EngineOptions
from simserve.server.settings import (
    Settings,
    command_line_layer,
    environment_layer,
    file_layer,
    load_settings,
)
from simserve.server.settings.sections import DEFAULT_HARDWARE, DEFAULT_MODEL

CONFIG_VARIABLE = "SIMSERVE_CONFIG"


@dataclass(frozen=True)
class Flag:
    """A flag (or several names of it) that sets ``key``; ``more`` goes to argparse."""

    key: str
    names: tuple[str, ...]
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.key.split("."))

    def help(self) -> str:
        """What the settings say of the key, with its default."""
        section, name = self.keys
        key = Settings.model_fields[section].default.__class__.model_fields[name]
        default = "" if key.default in (None, [], False) else f" ({_short(key.default)})"
        return f"{key.description}{default}".replace("%", "%%")  # argparse formats help with %


SWITCH = {"action": argparse.BooleanOptionalAction}
MANY = {"nargs": "+"}

GROUPS: dict[str, tuple[Flag, ...]] = {
    "server": (
        Flag("server.host", ("--host", "--http-host")),
        Flag("server.port", ("--port", "--http-port")),
        Flag("server.workers", ("--workers",)),
        Flag("server.timeout", ("--timeout",)),
        Flag("server.max_body_size", ("--max-body-size",)),
        Flag("server.max_waiting_requests", ("--max-waiting-requests",)),
        Flag("server.shutdown_grace", ("--shutdown-grace",)),
        Flag("auth.keys", ("--api-key",), {**MANY, "metavar": "KEY"}),
    ),
    "models": (
        Flag("models.served_names", ("--served-model-name",), {**MANY, "metavar": "NAME"}),
        Flag("models.preload", ("--preload",), {"nargs": "*", "metavar": "NAME"}),
        Flag("models.max_loaded", ("--max-loaded",)),
        Flag("models.unload_timeout", ("--unload-timeout",)),
        Flag("models.models_dir", ("--models-dir",)),
    ),
    "answers": (
        Flag("engine.type", ("--engine",)),
        Flag("engine.time_scale", ("--time-scale",)),
        Flag("inference.max_total_tokens", ("--max-total-tokens",)),
        Flag("inference.max_input_tokens", ("--max-input-tokens",)),
        Flag("inference.streaming_default", ("--streaming-default",), SWITCH),
        Flag("inference.optimize_first_token", ("--optimize-first-token",), SWITCH),
    ),
    "logging": (
        Flag("logging.level", ("--log-level",)),
        Flag("logging.format", ("--log-format",)),
        Flag("logging.path", ("--log-file",)),
    ),
    "failures on purpose": (
        Flag("failures.enabled", ("--enable-failures",), SWITCH),
        Flag("failures.rate", ("--fail-rate",)),
        Flag("failures.statuses", ("--fail-with",), {**MANY, "metavar": "STATUS"}),
        Flag("failures.latency_jitter", ("--latency-jitter",)),
        Flag("failures.seed", ("--fail-seed",)),
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve serve``; those not given are None."""
    parser.add_argument("--config", metavar="FILE", help=f"a YAML file of settings (${CONFIG_VARIABLE})")
    add_model_hardware_arguments(parser, default_model=DEFAULT_MODEL, default_hardware=DEFAULT_HARDWARE)
    for title, flags in GROUPS.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            metavar = {} if flag.more else {"metavar": flag.keys[1].upper()}
            group.add_argument(*flag.names, dest=flag.key, help=flag.help(), default=None, **metavar, **flag.more)
    group.add_argument("--verbose", action="store_true", help="log details too: --log-level debug")
    group.add_argument("--idle-mode", action="store_true", help="generate no traffic, which is what serve does anyway")
    add_engine_arguments(parser)
    options = (option.name for option in fields(EngineOptions))
    parser.set_defaults(model=None, hardware=None, **dict.fromkeys(options))


def read_settings(args: argparse.Namespace) -> Settings:
    """Settings from the file, the environment and the command line, the strongest last.

    Raises :class:`simserve.errors.ConfigError` for what cannot be honoured.
    """
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


def _short(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
