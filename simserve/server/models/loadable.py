"""One model that can be asked for: what the settings say of it, checked, and the way to load it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from simserve.config import EngineOptions
from simserve.engines import SimulatedEngine
from simserve.engines.base import Engine
from simserve.errors import ConfigError
from simserve.hardware import HardwareProfile, load_hardware
from simserve.models import ModelSpec, load_model
from simserve.server.answers.habits import habits_in
from simserve.server.models.cold_start import load_seconds
from simserve.server.service import Service
from simserve.server.settings import AvailableModel, Settings
from simserve.server.settings.section import engine_options_in
from simserve.server.simulated import simulated_over
from simserve.server.torch_service import RealEngine, check_torch, torch_over, torch_service
from simserve.server.unsupported import SIMULATED, TORCH, Unsupported, refuse_unsupported
from simserve.simulation import EngineSetup, prepare

GB = 2**30
"""Data sheets of accelerators say GB and mean this."""

PREFILL_FIRST = ("sglang", "vllm-v0")
"""Policies that compute waiting prompts before any answer goes on: the first in chunks, the second whole."""


@dataclass(frozen=True)
class Loadable:
    """A model that can be asked for. ``load`` makes a service, whose engine it does not start; ``over`` makes one for
    an engine that somebody else has, and blocks meanwhile.

    ``names`` are all that it goes by, answers carry the first; ``load_s`` is how long a load takes on the wall clock
    at least, ``unsupported`` are the fields of a request that its engine cannot honour. ``has_adapters`` says whether
    LoRA adapters cost it anything.
    """

    names: tuple[str, ...]
    root: str
    max_model_len: int
    load: Callable[[], Awaitable[Service]]
    over: Callable[[Engine], Service]
    load_s: float = 0.0
    unsupported: Unsupported = SIMULATED
    has_adapters: bool = False

    @property
    def name(self) -> str:
        return self.names[0]

    def refuse(self, fields: dict[str, Any]) -> None:
        """Raise :class:`simserve.server.errors.ApiError` for a body that asks what its engine cannot do."""
        refuse_unsupported(fields, self.unsupported)


def simulated_model(name: str, entry: AvailableModel, settings: Settings, *, is_default: bool) -> Loadable:
    """A model behind the simulated engine; raises :class:`simserve.errors.SimServeError` if it cannot run."""
    memory_gb, time_scale = settings.engine.memory_gb, settings.engine.time_scale
    model, names = _named(name, entry, settings, is_default=is_default)
    memory_bytes = None if memory_gb is None else int(memory_gb * GB)
    hardware = load_hardware(entry.hardware or settings.engine.hardware).with_overrides(memory_bytes=memory_bytes)
    setup = _prepared(model, hardware, options_of(entry, settings), settings.inference.max_total_tokens)

    habits, reasons = habits_in(settings.answers), settings.answers.reasoning

    def over(engine: Engine) -> Service:
        return simulated_over(model, engine, names, habits, reasons=reasons)

    async def load() -> Service:
        return await asyncio.to_thread(lambda: over(SimulatedEngine(setup, time_scale)))

    simulated_s = load_seconds(setup, settings.models.disk_bandwidth_gb_per_s * 1e9)
    wall_s = 0.0 if math.isinf(time_scale) else simulated_s / time_scale
    able = setup.adapters is not None
    return Loadable(names, model.name, setup.limits.max_model_len, load, over, wall_s, has_adapters=able)


def torch_model(name: str, entry: AvailableModel, settings: Settings, *, is_default: bool) -> Loadable:
    """A model behind the torch engine, which really loads it; raises as :func:`simulated_model` does.

    Until it is loaded, its longest sequence is that of its config: memory may allow less.
    """
    device, threads, most = settings.engine.device, settings.engine.threads, settings.inference.max_total_tokens
    if entry.hardware is not None:
        raise ConfigError("hardware means nothing to the torch engine; leave it out")
    model, names = _named(name, entry, settings, is_default=is_default)
    options = options_of(entry, settings)
    if options.max_model_len is None and most is not None:
        options = replace(options, max_model_len=min(most, model.max_model_len))
    check_torch(model, options)

    def over(engine: Engine) -> Service:
        return torch_over(model, cast(RealEngine, engine), names)

    async def load() -> Service:
        return await asyncio.to_thread(torch_service, model, options, device, names, threads)

    longest = options.max_model_len or model.max_model_len
    return Loadable(names, model.name, longest, load, over, unsupported=TORCH)


def _named(
    name: str, entry: AvailableModel, settings: Settings, *, is_default: bool
) -> tuple[ModelSpec, tuple[str, ...]]:
    """The model, and all names that it goes by."""
    path = _path(entry.path or name, settings.models.models_dir)
    model = load_model(path)
    # One that is neither listed nor in the folder goes by its own name, and by the one it was asked for.
    own = [name, *entry.aliases] if name in settings.models.available or path != name else [model.name, name]
    return model, tuple(dict.fromkeys((is_default and settings.models.served_names) or own))


def _path(name: str, folder: Path | None) -> str:
    """Where a model lies: in ``folder`` if it is there, else as :func:`load_model` finds it."""
    return str(folder / name) if folder is not None and (folder / name).exists() else name


def options_of(entry: AvailableModel, settings: Settings) -> EngineOptions:
    """The engine's options of one model, its own over those of all; raises :class:`ConfigError`."""
    inference = settings.inference
    options = engine_options_in(settings.engine)
    if inference.max_batch_size is not None:
        options["max_num_seqs"] = inference.max_batch_size
    if inference.optimize_first_token:
        options.setdefault("policy", PREFILL_FIRST[0])
    options |= engine_options_in(entry)
    if entry.max_tokens is not None:
        options["max_model_len"] = entry.max_tokens
    if inference.optimize_first_token and options["policy"] not in PREFILL_FIRST:
        raise ConfigError(
            f"inference.optimize_first_token wants waiting prompts first, and --policy {options['policy']} does not;"
            " leave one of them out"
        )
    check_cap(options.get("max_model_len"), inference.max_total_tokens, "its longest sequence")
    return EngineOptions(**options)


def check_cap(max_model_len: int | None, max_total_tokens: int | None, what: str) -> None:
    """Raise :class:`ConfigError` if a stated length is above the cap on all of them."""
    if None not in (max_model_len, max_total_tokens) and max_model_len > max_total_tokens:  # type: ignore[operator]
        raise ConfigError(
            f"{what} of {max_model_len} tokens is more than inference.max_total_tokens"
            f" {max_total_tokens}; lower the first or raise the second"
        )


def _prepared(
    model: ModelSpec, hardware: HardwareProfile, options: EngineOptions, max_total_tokens: int | None
) -> EngineSetup:
    """The engine, with no sequence longer than ``max_total_tokens`` where it would have had longer ones."""
    setup = prepare(model, hardware, options)
    if max_total_tokens is None or setup.limits.max_model_len <= max_total_tokens:
        return setup
    return replace(setup, limits=replace(setup.limits, max_model_len=max_total_tokens))
