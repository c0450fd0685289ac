"""A settings file: YAML, with the line of every key, and a key that stands there twice refused."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from simserve.errors import ConfigError

Keys = tuple[str, ...]


def read_file(path: Path) -> tuple[dict[str, Any], Mapping[Keys, int]]:
    """The keys of ``path``, nested, and the line of each; raises :class:`ConfigError` for what is not settings."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); give --config a YAML file") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}{_place(error)}: this is not YAML ({_reason(error)})") from None
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: settings are keys with values, such as server: {{port: 8000}}")
    lines: dict[Keys, int] = {}
    _note_lines(node, (), lines, path)
    return values, lines


def _note_lines(node: Any, above: Keys, lines: dict[Keys, int], path: Path) -> None:
    """Note the line of every key in ``node``; entries of a list go by their name, or else their number."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            where = (*above, str(key.value))
            if where in lines:
                raise ConfigError(f"{path}, line {_line(key)}: {'.'.join(where)} is there twice; leave one of them")
            lines[where] = _line(key)
            _note_lines(value, where, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            where = (*above, _name_of(value) or str(number))
            lines[where] = _line(value)
            _note_lines(value, where, lines, path)


def _name_of(node: Any) -> str | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((str(value.value) for key, value in pairs if key.value == "name"), None)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f", line {mark.line + 1}"


def _reason(error: yaml.YAMLError) -> Hashable:
    return getattr(error, "problem", None) or "it cannot be parsed"
