"""What the installation and the machine provide: the files shipped with SimServe, and how many files may be open.

The shipped ones lie in a clone at the top, in an installed wheel inside the package.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Literal

from simserve.errors import SimServeError

DataKind = Literal["models", "hardware_profiles"]


def data_dir(kind: DataKind) -> Path:
    """Return the folder of the shipped model configs or hardware profiles.

    Raises :class:`SimServeError` when the installation lacks it.
    """
    return _find(Path(__file__).resolve().parent, kind)


def _find(package_dir: Path, kind: DataKind) -> Path:
    clone = package_dir.parent
    # Beside a pyproject.toml only: site-packages may hold somebody else's folder called "models".
    if (clone / "pyproject.toml").is_file() and (clone / kind).is_dir():
        return clone / kind
    installed = package_dir / "data" / kind
    if not installed.is_dir():
        raise SimServeError(f"{installed} is missing: reinstall SimServe, its {kind} were not packaged")
    return installed


def allow_many_connections() -> None:
    """Raise the soft limit of open files to the hard one: each connection is one."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
