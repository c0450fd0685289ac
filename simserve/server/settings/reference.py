"""The settings as tables, for ``docs/configuration.md``: made from the sections, so that they cannot say otherwise."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from simserve.server.settings.quantities import read_bytes, read_seconds
from simserve.server.settings.sections import AvailableModel, KeySection, Settings

WORDS = {
    "bool": "true or false", "str": "text", "SecretStr": "text", "int": "whole number", "float": "number",
    "Path": "path", "Rotation": "size or duration", "Retention": "number or duration",
}  # fmt: skip


def sections() -> dict[str, type[BaseModel]]:
    """Every section by its name, and those of the entries of lists and mappings, in the order of the page."""
    found: dict[str, type[BaseModel]] = {}
    for name, field in Settings.model_fields.items():
        found[name] = type(field.default)
        if name == "auth":
            found["auth.keys[]"] = KeySection
        if name == "models":
            found["models.available.<name>"] = AvailableModel
    return found


def settings_reference() -> str:
    """All sections as Markdown, each with its purpose and a row for every key."""
    return "\n\n".join(_table(name, section) for name, section in sections().items())


def every_key() -> list[str]:
    """Every key in full, such as ``server.port``, but for the engine's options."""
    return [
        f"{name}.{key}"
        for name, section in sections().items()
        for key, field in section.model_fields.items()
        if not _is_engine_option(field)
    ]


def _table(name: str, section: type[BaseModel]) -> str:
    fields = section.model_fields.items()
    rows = [_row(key, field) for key, field in fields if not _is_engine_option(field)]
    options = ", ".join(f"`{key}`" for key, field in fields if _is_engine_option(field))
    more = f"And the engine's options, which mean what `simserve serve --help` says of their flags: {options}."
    table = [f"### `{name}`", "", (section.__doc__ or "").strip(), "", "| key | is | default | |", "|---|---|---|---|"]
    return "\n".join([*table, *rows, *(["", more] if options else [])])


def _row(key: str, field: FieldInfo) -> str:
    return f"| `{key}` | {_words(field)} | {_default(field)} | {field.description} |"


def _is_engine_option(field: FieldInfo) -> bool:
    return (field.description or "").startswith("`--")


def _words(field: FieldInfo) -> str:
    """What kind of thing a key holds."""
    readers = {getattr(part, "func", None) for part in field.metadata} | {
        getattr(part, "func", None) for kind in _alternatives(field.annotation) for part in get_args(kind)[1:]
    }
    if read_bytes in readers:
        return "size"
    if read_seconds in readers:
        return "duration"
    return _kind(next(kind for kind in _alternatives(field.annotation) if kind is not type(None)))


def _alternatives(kind: Any) -> list[Any]:
    return list(get_args(kind)) if get_origin(kind) in (Union, types.UnionType) else [kind]


def _kind(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _kind(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is list:
        inner = _kind(get_args(kind)[0])
        return "list" if inner.startswith("`") or "section" in inner else f"list of {inner}s"
    if get_origin(kind) is dict:
        return "mapping"
    return WORDS.get(kind.__name__, "section")


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    words = _words(field)
    if words == "size":
        return f"`{value >> 20} MiB`"
    if words == "duration":
        return f"`{value:g} s`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    print(settings_reference())
