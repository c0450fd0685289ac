"""Settings of one run: options of ``simserve simulate`` by name, and the command line that they are."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from simserve import __version__
from simserve.errors import ConfigError
from simserve.metrics.result import Result

Value = str | int | float | bool | None
Settings = Mapping[str, Value]
"""By the option's name with underscores; True and False are ``--x`` and ``--no-x``, None leaves the option out."""

RunOnce = Callable[[Settings], Result]
"""Does one run; raises :class:`simserve.errors.SimServeError` for settings that cannot be."""


def arguments(settings: Settings) -> list[str]:
    """``settings`` as words of a command line."""
    return list(_words(settings))


def command(settings: Settings, name: str = "simserve simulate") -> str:
    """A command line that does this one run, to be pasted into a shell."""
    return f"{name} {shlex.join(arguments(settings))}"


def run_key(settings: Settings, **more: object) -> str:
    """Names what a run computes: the same key, the same result. Files count by their content."""
    files = {str(value): _digest(Path(str(value))) for value in settings.values() if _is_file(value)}
    given = {name: value for name, value in settings.items() if value is not None}
    text = json.dumps([__version__, given, files, more], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def normal_name(name: str) -> str:
    """``--max-num-seqs`` and ``max_num_seqs`` are one."""
    return name.lstrip("-").replace("-", "_")


def merged(*parts: Settings) -> dict[str, Value]:
    """Later ones win."""
    return {name: value for part in parts for name, value in part.items()}


def _words(settings: Settings) -> Iterator[str]:
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        if value is True:
            yield f"--{flag}"
        elif value is False:
            yield f"--no-{flag}"
        elif isinstance(value, float):
            yield from (f"--{flag}", f"{value:.12g}")
        else:
            yield from (f"--{flag}", str(value))


def _is_file(value: Value) -> bool:
    if not isinstance(value, str) or "\0" in value or len(value) > 4000:
        return False
    try:
        return Path(value).is_file()
    except OSError:
        return False


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
