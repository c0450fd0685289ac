"""Finding a profile by name, alias or path, and reading its YAML file."""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simserve.errors import HardwareError
from simserve.hardware.curves import Calibration, Curves, Derived
from simserve.hardware.profile import HardwareProfile
from simserve.resources import data_dir


def load_hardware(name_or_path: str) -> HardwareProfile:
    """Load a shipped profile by name or alias, or any profile by the path of its .yaml file.

    Names ignore case, spaces, dashes and underscores: ``RTX 3090`` is ``rtx-3090``.
    Raises :class:`HardwareError` when there is no such profile or a file is malformed.
    """
    if name_or_path.lower().endswith((".yaml", ".yml")):
        return _with_derived_curves(_read(Path(name_or_path).expanduser()))
    wanted = _normal(name_or_path)
    files = _files()
    for file in files:
        if _normal(file.stem) == wanted:
            return _with_derived_curves(_read(file))
    for file in files:
        if wanted in map(_normal, _aliases(file)):
            return _with_derived_curves(_read(file))
    raise HardwareError(_unknown(name_or_path, [_read(file) for file in files]))


def list_hardware() -> list[str]:
    """Names of the shipped profiles, sorted; each is the name of its file."""
    return [file.stem for file in _files()]


def _with_derived_curves(profile: HardwareProfile) -> HardwareProfile:
    """Put the curves of the devices it names in place of a profile's derived operators."""
    calibration = profile.calibration
    if calibration is None:
        return profile
    changes = {}
    for operator in Calibration.model_fields:
        value = getattr(calibration, operator)
        if isinstance(value, Derived):
            changes[operator] = _curves_of(value, operator, profile.name)
    return profile.model_copy(update={"calibration": calibration.model_copy(update=changes)}) if changes else profile


def _curves_of(derived: Derived, operator: str, wanted_by: str) -> Curves:
    file = data_dir("hardware_profiles") / f"{derived.derived_from}.yaml"
    source = _read(file).calibration
    curves = getattr(source, operator, None)
    if not isinstance(curves, Curves):
        raise HardwareError(
            f"{wanted_by} takes {operator} from {derived.derived_from}, which has no measured curves of it"
        )
    return curves.model_copy(update={"derived": derived})


def _aliases(shipped: Path) -> list[str]:
    """The aliases of a shipped profile, which stand in one line: so that finding one does not take reading all."""
    found = re.search(r"^aliases: \[(.*)\]$", shipped.read_text(encoding="utf-8"), re.MULTILINE)
    return [alias.strip() for alias in found[1].split(",")] if found else []


def _files() -> list[Path]:
    return sorted(data_dir("hardware_profiles").glob("*.yaml"), key=lambda file: file.stem.lower())


def _normal(name: str) -> str:
    return name.lower().translate(str.maketrans("", "", " -_"))


def _unknown(name: str, profiles: list[HardwareProfile]) -> str:
    by_normal = {_normal(word): profile.name for profile in profiles for word in (profile.name, *profile.aliases)}
    close = dict.fromkeys(by_normal[word] for word in difflib.get_close_matches(_normal(name), by_normal, n=3))
    hint = f" (closest: {', '.join(close)})" if close else ""
    names = ", ".join(profile.name for profile in profiles)
    return f"hardware '{name}' is not known{hint}: give a profile's .yaml file, or one of {names}"


def _read(file: Path) -> HardwareProfile:
    try:
        changed = file.stat().st_mtime_ns
    except OSError:
        changed = 0
    return _read_as_of(file, changed)


@lru_cache(maxsize=64)
def _read_as_of(file: Path, changed: int) -> HardwareProfile:
    """Read ``file``; one that was not ``changed`` since is not read again. Profiles are frozen."""
    content = _parse_yaml(file)
    if not isinstance(content, dict):
        raise HardwareError(f"{file}: must hold the fields of a hardware profile, as 'name: ...'")
    try:
        return HardwareProfile.model_validate(content)
    except ValidationError as error:
        raise HardwareError(f"{file}: {_first_problem(error)}") from None


def _parse_yaml(file: Path) -> Any:
    import yaml

    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise HardwareError(f"{file}, line {line}: not valid YAML ({error.problem})") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HardwareError(f"{file}: cannot be read ({error})") from None


def _first_problem(error: ValidationError) -> str:
    problems = error.errors()
    # Pydantic puts "[key]" behind a mapping key that is wrong itself, as for an unknown dtype.
    field = ".".join(str(part) for part in problems[0]["loc"] if part != "[key]")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if problems[0]["type"] == "extra_forbidden":
        return f"{field} is not a field of a hardware profile: remove it or correct its spelling{more}"
    if problems[0]["type"] == "missing":
        return f"{field} is missing{more}"
    message = problems[0]["msg"]
    return f"{field}: {message[0].lower()}{message[1:]}{more}"
