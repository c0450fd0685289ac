"""Classes of a user's own, named on the command line as ``file.py:Class``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from simserve.errors import ConfigError


def module_at(path: Path, kind: str) -> ModuleType:
    """The module in ``path``, which holds a ``kind`` (policy, router); raises :class:`ConfigError`."""
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"cannot read the {kind}'s file {path}; --{kind} takes file.py:Class")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"the {kind}'s file {path} cannot be run: {type(error).__name__}: {error}") from error
    return module
