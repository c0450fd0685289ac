"""``simserve serve``: listen and answer OpenAI's API; traffic comes from clients alone."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from simserve.cli import serve_options

if TYPE_CHECKING:
    from simserve.engines.base import Engine
    from simserve.server.models import ModelPool

OK = 0

add_arguments = serve_options.add_arguments


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C; raises :class:`simserve.errors.SimServeError` if that is not possible."""
    settings = serve_options.read_settings(args)

    from simserve.server.logs import set_up_logging
    from simserve.server.models import pool_of
    from simserve.server.run import serve
    from simserve.server.secrecy import Secrets

    set_up_logging(settings.logging, Secrets(settings.auth))
    models = pool_of(settings)
    serve(models, settings, lambda url: _say(models, url, logged=settings.logging.console))
    return OK


def _say(models: ModelPool, url: str, *, logged: bool) -> None:
    """Tell whoever started it, as a part of the log if that goes to the console: scripts wait for the last line."""
    import logging

    log = logging.getLogger("simserve.server")
    for line in (*_summary(models).splitlines(), f"Listening on {url} (Ctrl-C to stop)"):
        if logged and log.isEnabledFor(logging.INFO):
            log.info("%s", line)
        else:
            print(line, flush=True)


def _summary(models: ModelPool) -> str:
    """What is served and on what, for the first lines of the log."""
    loaded = [_engine_summary(slot.service.engine, slot.model.names) for slot in models.slots if slot.service]
    others = [slot.model.name for slot in models.slots if not slot.service]
    return "\n".join([*loaded, *([f"On demand  {', '.join(others)}"] if others else [])])


def _engine_summary(running: Engine, names: tuple[str, ...]) -> str:
    engine = running.describe()
    if "groups" in engine:
        return _cluster_summary(engine, names, running.max_model_len)
    formats, where, speed = _torch(engine) if engine["engine"] == "torch" else _simulated(engine)
    return "\n".join(
        [
            f"Model      {engine['model']}, {formats}, up to {engine['max_model_len']} tokens,"
            f" served as {', '.join(names)}",
            where,
            f"KV cache   {engine['kv_blocks']} blocks of {engine['block_size']} tokens",
            f"Engine     {engine['engine']}, policy {engine['policy']}, at most {engine['max_num_seqs']} requests and"
            f" {engine['max_num_batched_tokens']} tokens a step{speed}",
        ]
    )


def _cluster_summary(cluster: dict[str, Any], names: tuple[str, ...], longest: int) -> str:
    """A line for each group."""
    lines = [
        f"Model      {cluster['model']}, up to {longest} tokens, served as {', '.join(names)}",
        f"Cluster    {cluster['replicas']} replicas, router {cluster['router']}, time scale {cluster['time_scale']}",
    ]
    for group in cluster["groups"]:
        calibrated = "calibrated" if group["calibrated"] else "not calibrated"
        lines.append(
            f"Group      {group['name']}: {group['replicas']} x {group['hardware']} ({calibrated}:"
            f" {group['uncertainty']}), {group['role']}, {group['kv_blocks']} blocks of {group['block_size']} tokens,"
            f" policy {group['policy']}"
        )
    return "\n".join(lines)


def _simulated(engine: dict[str, object]) -> tuple[object, str, str]:
    """Number formats, the line about the hardware, and how fast the clock goes."""
    calibrated = "calibrated" if engine["calibrated"] else "not calibrated"
    hardware = f"{engine['tensor_parallel_size']} x {engine['hardware_profile']}"
    front_end = f", front end {engine['front_end']}" if engine["api_server_count"] else ""
    speed = f", time scale {engine['time_scale']}{front_end}"
    return engine["formats"], f"Hardware   {hardware} ({calibrated}: {engine['uncertainty']})", speed


def _torch(engine: dict[str, object]) -> tuple[object, str, str]:
    return engine["dtype"], f"Device     {engine['device']}, torch {engine['torch']}", ""
