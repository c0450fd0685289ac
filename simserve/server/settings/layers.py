"""Where settings come from, one layer over the other: defaults < file < environment < command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from simserve.server.settings.files import read_file
from simserve.server.settings.sections import Settings

PREFIX = "SIMSERVE_"
OLDER_PREFIX = "LLMSERVINGSIM_"

SHORT_NAMES = {"HOST": ("server", "host"), "PORT": ("server", "port"), "MODEL": ("models", "default")}
"""Settings that the environment may say shortly, as in ``SIMSERVE_PORT``; the older prefix knows these alone."""

Keys = tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """Nested settings from one place; ``name_of`` says how a person finds a key there."""

    values: Mapping[str, Any]
    name_of: Callable[[Keys], str]

    def has(self, keys: Keys) -> bool:
        """Whether this layer states the key or something below it."""
        return _at(self.values, keys) is not None


def file_layer(path: Path) -> Layer:
    """The settings of a YAML file; raises :class:`simserve.errors.ConfigError` if it cannot be read."""
    values, lines = read_file(path)

    def name_of(keys: Keys) -> str:
        known = next((keys[:end] for end in range(len(keys), 0, -1) if keys[:end] in lines), ())
        place = f", line {lines[known]}" if known else ""
        return f"{path}{place}: {'.'.join(keys)}"

    return Layer(values, name_of)


def environment_layer(environment: Mapping[str, str] = os.environ) -> Layer:
    """``SIMSERVE_<SECTION>__<KEY>``, and the short names; an empty variable counts as not set."""
    values: dict[str, Any] = {}
    names: dict[Keys, str] = {}
    for name, keys in SHORT_NAMES.items():
        found = next((one for prefix in (PREFIX, OLDER_PREFIX) if environment.get(one := prefix + name)), None)
        if found:
            names[keys] = found
            put(values, keys, environment[found])
    merge_into(values, _by_section())

    def name_of(keys: Keys) -> str:
        return names.get(keys) or PREFIX + "__".join(key.upper() for key in keys)

    return Layer(values, name_of)


def _by_section() -> dict[str, Any]:
    class Names(Settings, BaseSettings):
        model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True)

    return EnvSettingsSource(Names)()


def command_line_layer(given: Iterable[tuple[str, Keys, object]]) -> Layer:
    """``given`` are flags with the key that each sets and its value; None is a flag that was not given."""
    values: dict[str, Any] = {}
    names: dict[Keys, str] = {}
    for flag, keys, value in given:
        if value is not None:
            names[keys] = flag
            put(values, keys, value)

    def name_of(keys: Keys) -> str:
        known = next((keys[:end] for end in range(len(keys), 0, -1) if keys[:end] in names), keys)
        return names.get(known, ".".join(keys))

    return Layer(values, name_of)


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """All layers as one, later ones over earlier ones.

    What a later layer says of all models beats what an earlier one says of a single model.
    """
    together: dict[str, Any] = {}
    for layer in layers:
        _forget_of_single_models(together, layer)
        merge_into(together, {section: keys for section, keys in layer.values.items() if keys is not None})
    return together


def _forget_of_single_models(values: Mapping[str, Any], layer: Layer) -> None:
    models = _at(values, ("models", "available"))
    entries = models.values() if isinstance(models, dict) else models if isinstance(models, list) else ()
    stated = set(_at(layer.values, ("engine",)) or ())
    stated |= {"max_tokens"} if "max_model_len" in stated else set()
    stated |= {"max_num_seqs"} if layer.has(("inference", "max_batch_size")) else set()
    for entry in entries:
        for key in stated & set(entry if isinstance(entry, dict) else ()):
            del entry[key]


def put(values: dict[str, Any], keys: Keys, value: object) -> None:
    """Set a nested key, making the mappings above it."""
    for key in keys[:-1]:
        values = values.setdefault(key, {})
    values[keys[-1]] = value


def merge_into(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Lay ``more`` over ``values``: mappings are merged, all else is replaced."""
    for key, value in more.items():
        below = values.get(key)
        if isinstance(value, Mapping):
            mapping: dict[str, Any] = dict(below) if isinstance(below, Mapping) else {}
            merge_into(mapping, value)
            values[key] = mapping
        else:
            values[key] = value


def _at(values: Any, keys: Keys) -> Any:
    for key in keys:
        if not isinstance(values, Mapping) or key not in values:
            return None
        values = values[key]
    return values
