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
    from simserve.server.routes import Service

DEFAULT_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
DEFAULT_HARDWARE = "A100"
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
        "--engine", choices=("simulated", "torch"), default="simulated", help="what generates (simulated)"
    )
    group.add_argument(
        "--time-scale",
        type=_time_scale,
        default=1.0,
        metavar="X",
        help="how much faster than real time; inf answers at once (1)",
    )
    group.add_argument(
        "--idle-mode", action="store_true", help="wait for clients and generate no traffic, which is what serve does"
    )
    group.add_argument("--verbose", action="store_true", help="log the end of every request too")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C; raises :class:`simserve.errors.SimServeError` if that is not possible."""
    if args.engine == "torch":
        raise ConfigError("--engine torch is not part of this version yet; leave it out to simulate")
    host = args.host or setting("HOST", os.environ) or DEFAULT_HOST
    port = port_of(args.port, os.environ)
    model, hardware = model_and_hardware(args)
    options = engine_options(args)

    from simserve.server.run import serve
    from simserve.server.simulated import simulated_service

    _log_to_stdout(verbose=args.verbose)
    names = args.served_model_name or list(dict.fromkeys((model.name, args.model)))
    service = simulated_service(model, hardware, options, args.time_scale, names)
    summary = _summary(service)
    serve(service, host, port, lambda url: print(f"{summary}\nListening on {url} (Ctrl-C to stop)", flush=True))
    return OK


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
