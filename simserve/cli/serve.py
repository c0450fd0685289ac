"""``simserve serve``: listen and answer OpenAI's API; traffic comes from clients alone."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from simserve.cli.options import (
    add_engine_arguments,
    add_model_hardware_arguments,
    engine_options,
    model_and_hardware,
    whole_number,
)
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.models import ModelSpec
    from simserve.server.routes import Service

DEFAULT_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
DEFAULT_HARDWARE = "A100"
DEFAULT_TORCH_MODEL = "simserve/tiny-chat"
DEFAULT_HOST = "0.0.0.0"
DEFAULT_PORT = 8000

ENVIRONMENTS = ("SIMSERVE", "LLMSERVINGSIM")
"""Where settings are looked for when the command line has none, first come first; as in ``SIMSERVE_PORT``."""

OK = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve serve``; those not given come from the environment, then from the defaults."""
    default_model = setting("MODEL", os.environ) or DEFAULT_MODEL
    add_model_hardware_arguments(parser, default_model=default_model, default_hardware=DEFAULT_HARDWARE)
    _add_server_arguments(parser)
    add_engine_arguments(parser)
    parser.set_defaults(model=None, hardware=None)  # what --help says depends on the engine


def _add_server_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "server", "Host, port and model may also come from SIMSERVE_HOST, SIMSERVE_PORT and SIMSERVE_MODEL."
    )
    group.add_argument("--host", "--http-host", help=f"address to listen on ({DEFAULT_HOST}, all of this machine)")
    group.add_argument(
        "--port", "--http-port", type=whole_number, metavar="N", help=f"port to listen on; 0 is any ({DEFAULT_PORT})"
    )
    group.add_argument(
        "--served-model-name",
        nargs="+",
        metavar="NAME",
        help="what clients call the model; answers carry the first name (the model's own)",
    )
    group.add_argument(
        "--engine",
        choices=("simulated", "torch"),
        default="simulated",
        help=f"what answers: the simulation, or a real model, {DEFAULT_TORCH_MODEL} if none is named (simulated)",
    )
    group.add_argument("--device", choices=("cpu", "cuda"), help="where --engine torch runs (cuda if there is one)")
    group.add_argument(
        "--threads",
        type=whole_number,
        metavar="N",
        help="CPU threads of --engine torch (torch's choice, 1 for tiny models)",
    )
    group.add_argument(
        "--time-scale",
        type=_time_scale,
        metavar="X",
        help="how much faster than real time; inf answers at once (1)",
    )
    group.add_argument(
        "--idle-mode", action="store_true", help="wait for clients and generate no traffic, which is what serve does"
    )
    group.add_argument("--verbose", action="store_true", help="log the end of every request too")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C; raises :class:`simserve.errors.SimServeError` if that is not possible."""
    host = args.host or setting("HOST", os.environ) or DEFAULT_HOST
    port = port_of(args.port, os.environ)
    _log_to_stdout(verbose=args.verbose)
    service, summary = _torch(args) if args.engine == "torch" else _simulated(args)

    from simserve.server.run import serve

    serve(service, host, port, lambda url: print(f"{summary}\nListening on {url} (Ctrl-C to stop)", flush=True))
    return OK


def _simulated(args: argparse.Namespace) -> tuple[Service, str]:
    """The service that simulates, and the first lines of its log."""
    from simserve.server.simulated import simulated_service

    _refuse_others_options(args, ("device", "threads"))
    args.model = args.model or setting("MODEL", os.environ) or DEFAULT_MODEL
    args.hardware = args.hardware or DEFAULT_HARDWARE
    model, hardware = model_and_hardware(args)
    time_scale = 1.0 if args.time_scale is None else args.time_scale
    service = simulated_service(model, hardware, engine_options(args), time_scale, _names(args, model))
    return service, _summary(service)


def _torch(args: argparse.Namespace) -> tuple[Service, str]:
    """The service that runs a real model, and the first lines of its log."""
    from simserve.models import load_model
    from simserve.server.torch_service import torch_service

    _refuse_others_options(args, ("hardware", "npu_mem", "time_scale"))
    args.model = args.model or setting("MODEL", os.environ) or DEFAULT_TORCH_MODEL
    model = load_model(args.model)
    if args.threads is not None and args.threads < 1:
        raise ConfigError(f"--threads must be at least 1, not {args.threads}")
    service = torch_service(model, engine_options(args), args.device, _names(args, model), args.threads)
    return service, _torch_summary(service)


def _refuse_others_options(args: argparse.Namespace, names: tuple[str, ...]) -> None:
    """Raise :class:`ConfigError` for options that mean something to the other engine only."""
    given = [name for name in names if getattr(args, name) is not None]
    if given:
        flag = f"--{given[0].replace('_', '-')}"
        raise ConfigError(f"{flag} means nothing to --engine {args.engine}; leave it out")


def _names(args: argparse.Namespace, model: ModelSpec) -> list[str]:
    """What clients may call the model."""
    return args.served_model_name or list(dict.fromkeys((model.name, args.model)))


def setting(name: str, environment: Mapping[str, str]) -> str | None:
    """``SIMSERVE_<name>`` or else ``LLMSERVINGSIM_<name>``; an empty one counts as not set."""
    return next((value for prefix in ENVIRONMENTS if (value := environment.get(f"{prefix}_{name}"))), None)


def port_of(given: int | None, environment: Mapping[str, str]) -> int:
    """The port: as given, else from the environment, else the default; raises :class:`ConfigError` for no port."""
    text = setting("PORT", environment) if given is None else str(given)
    port = DEFAULT_PORT if text is None else int(text) if text.isdecimal() and text.isascii() else -1
    if not 0 <= port <= 65535:
        where = "--port" if given is not None else "SIMSERVE_PORT (or LLMSERVINGSIM_PORT)"
        raise ConfigError(f"{text} is not a port; give {where} a number from 0 to 65535")
    return port


def _time_scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not scale > 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number or inf")
    return scale


def _log_to_stdout(*, verbose: bool) -> None:
    import logging
    import sys

    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING)
    logging.getLogger("simserve").setLevel(logging.DEBUG if verbose else logging.INFO)


def _summary(service: Service) -> str:
    """What is served and on what, for the first lines of the log."""
    engine = service.engine.describe()
    calibrated = "calibrated" if engine["calibrated"] else "not calibrated"
    uncertainty = f"{calibrated}: {engine['uncertainty']}"
    scale = engine["time_scale"]
    front_end = f", front end {engine['front_end']}" if engine["api_server_count"] else ""
    return "\n".join(
        [
            f"Model      {engine['model']}, {engine['formats']}, up to {engine['max_model_len']} tokens,"
            f" served as {', '.join(service.model_names)}",
            f"Hardware   {engine['tensor_parallel_size']} x {engine['hardware_profile']} ({uncertainty})",
            f"KV cache   {engine['kv_blocks']} blocks of {engine['block_size']} tokens",
            f"Engine     {engine['engine']}, policy {engine['policy']}, at most {engine['max_num_seqs']} requests and"
            f" {engine['max_num_batched_tokens']} tokens a step, time scale {scale}{front_end}",
        ]
    )


def _torch_summary(service: Service) -> str:
    """What runs and where, for the first lines of the log."""
    engine = service.engine.describe()
    return "\n".join(
        [
            f"Model      {engine['model']}, {engine['dtype']}, up to {engine['max_model_len']} tokens,"
            f" served as {', '.join(service.model_names)}",
            f"Device     {engine['device']}, torch {engine['torch']}",
            f"KV cache   {engine['kv_blocks']} blocks of {engine['block_size']} tokens",
            f"Engine     {engine['engine']}, policy {engine['policy']}, at most {engine['max_num_seqs']} requests and"
            f" {engine['max_num_batched_tokens']} tokens a step",
        ]
    )
