"""Layers of settings into one checked object, or one sentence that names the key and where it stands."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from simserve.errors import ConfigError
from simserve.server.settings.layers import Keys, Layer, merged
from simserve.server.settings.sections import Settings

SECRETS = ("auth", "key", "secret_key", "keys")
"""What stands at these keys is never repeated."""


def load_settings(layers: Sequence[Layer]) -> Settings:
    """Settings from ``layers``, the strongest last; raises :class:`ConfigError` for what cannot be honoured."""
    try:
        return Settings.model_validate(merged(layers))
    except ValidationError as error:
        raise ConfigError(_sentence(error, layers)) from None


def _sentence(error: ValidationError, layers: Sequence[Layer]) -> str:
    problem = error.errors(include_url=False)[0]
    keys = tuple(map(str, problem["loc"]))
    where = _where(keys, layers)
    if problem["type"] == "extra_forbidden":
        return f"{where} is not a key{_hint(keys)}"
    if problem["type"] == "contradiction":
        name, _, rest = problem["msg"].partition(" ")
        named = (*keys, *name.split("."))
        return f"{_where(named, layers)} {rest}" if _stated(named, layers) else f"{where}: {problem['msg']}"
    said = problem["msg"][:1].lower() + problem["msg"][1:]
    value = problem["input"]
    hidden = isinstance(value, dict | list) or any(key in SECRETS for key in keys)
    return f"{where}: {said}" + ("" if hidden else f", not {value!r}")


def _where(keys: Keys, layers: Sequence[Layer]) -> str:
    """How a person finds the key: in the strongest layer that states it, or the whole section if none does."""
    for end in range(len(keys), 0, -1):
        for layer in reversed(layers):
            if layer.has(keys[:end]):
                return layer.name_of(keys)
    return ".".join(keys) or "settings"


def _stated(keys: Keys, layers: Sequence[Layer]) -> bool:
    return any(layer.has(keys) for layer in layers)


def _hint(keys: Keys) -> str:
    known = [*_section_at(keys[:-1]).model_fields]
    close = difflib.get_close_matches(keys[-1], known, n=1)
    if close:
        return f"; did you mean {'.'.join((*keys[:-1], close[0]))}?"
    return f"; known are {', '.join(known)}"


def _section_at(keys: Keys) -> type[BaseModel]:
    """The section that ``keys`` lead to, through mappings by name and lists too."""
    kind: Any = Settings
    for key in keys:
        kind = kind.model_fields[key].annotation if _is_section(kind) else get_args(kind)[-1]
        while get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
    return kind  # type: ignore[no-any-return]


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
