"""Which models can be asked for: settings into models that are checked, described, and ready to be loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from simserve.config import DEFAULT_MODEL, DEFAULT_TORCH_MODEL
from simserve.errors import ConfigError, SimServeError
from simserve.server.models.loadable import Loadable, simulated_model, torch_model
from simserve.server.settings import AvailableModel, Settings
from simserve.server.settings.section import keys_for_flags

log = logging.getLogger("simserve.server")


def available_models(settings: Settings) -> list[Loadable]:
    """Every model that ``settings`` make available, the default one first.

    Raises :class:`simserve.errors.SimServeError`, naming the model's key, if one cannot be read or cannot run.
    """
    listed = dict(settings.models.available)
    found = _in_folder(settings.models.models_dir, listed)
    default = _default(settings, listed, found)
    if default not in (listed | found):
        listed = {default: AvailableModel(), **listed}
    models = {name: _loadable(name, entry, settings, is_default=name == default) for name, entry in listed.items()}
    models |= _usable(found, settings, default)
    ordered = [models.pop(default), *models.values()]
    _check_names(ordered)
    return ordered


def _default(settings: Settings, listed: Mapping[str, AvailableModel], found: Mapping[str, AvailableModel]) -> str:
    wanted = settings.models.default
    if wanted is None:
        fallback = DEFAULT_TORCH_MODEL if settings.engine.type == "torch" else DEFAULT_MODEL
        return next(iter([*listed, *found]), fallback)
    return next((name for name, entry in listed.items() if wanted in entry.aliases), wanted)


def _in_folder(folder: Path | None, listed: Mapping[str, AvailableModel]) -> dict[str, AvailableModel]:
    """Models in ``folder`` that nobody listed, by their paths below it."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise ConfigError(f"models.models_dir: there is no folder {folder}")
    taken = {(folder / (entry.path or name)).resolve() for name, entry in listed.items()}
    configs = sorted([*folder.glob("*/config.json"), *folder.glob("*/*/config.json")])
    folders = [config.parent for config in configs if config.parent.resolve() not in taken]
    return {path.relative_to(folder).as_posix(): AvailableModel() for path in folders}


def _usable(found: Mapping[str, AvailableModel], settings: Settings, default: str) -> dict[str, Loadable]:
    """Models that merely lie in the folder and cannot be served are left out with a warning, but for the default."""
    usable = {}
    for name, entry in found.items():
        try:
            usable[name] = _loadable(name, entry, settings, is_default=name == default)
        except SimServeError as error:
            if name == default:
                raise
            log.warning("%s in models.models_dir is left out: %s", name, error)
    return usable


def _loadable(name: str, entry: AvailableModel, settings: Settings, *, is_default: bool) -> Loadable:
    try:
        make = torch_model if (entry.type or settings.engine.type) == "torch" else simulated_model
        return make(name, entry, settings, is_default=is_default)
    except SimServeError as error:
        if name not in settings.models.available:
            raise
        raise type(error)(f"models.available.{name}: {keys_for_flags(str(error))}") from None


def _check_names(models: Sequence[Loadable]) -> None:
    owners: dict[str, Loadable] = {}
    for model in models:
        for name in model.names:
            if owners.setdefault(name, model) is not model:
                raise ConfigError(f"two models go by the name {name}; change one in models.available")
