"""Hardware profiles: what one accelerator can do at best by its data sheet, and how close software comes.

A profile is one YAML file in ``hardware_profiles/``; to describe a device that is not shipped, copy one and give
its path.
"""

from __future__ import annotations

import difflib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simserve.errors import HardwareError
from simserve.resources import data_dir

Dtype = Literal["bfloat16", "float16", "float32", "int8", "fp8"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Link(_Part):
    """A connection between devices, or from a device to its host."""

    name: str
    bandwidth_bytes_per_s: Positive
    """Of one device, in one direction."""
    max_devices: Annotated[int, Field(ge=2)] | None = None
    """How many devices it joins at most (2 for an NVLink bridge); null where a whole server is joined."""


class Power(_Part):
    """Electrical power of one device in watts; null where nothing is published."""

    peak_w: Positive
    idle_w: Positive | None = None


class Price(_Part):
    """What one device costs to rent. Prices move: ``date`` and ``source`` belong to the figure."""

    usd_per_hour: Positive
    date: date
    source: Annotated[str, Field(min_length=1)]


class Efficiency(_Part):
    """Fraction of the bound an operator is assumed to reach on a device that was never measured."""

    gemm_compute: Fraction = 0.70
    gemm_memory: Fraction = 0.80
    attention_prefill: Fraction = 0.45
    attention_decode: Fraction = 0.65
    uncertainty: Fraction = 0.35
    """Relative half-width of a time predicted from these assumptions."""


class HardwareProfile(_Part):
    """One accelerator. Peaks are dense (no sparsity) and, for floating point, with float32 accumulation."""

    name: str
    aliases: tuple[str, ...] = ()
    vendor: str
    kind: Literal["gpu", "npu", "tpu", "cpu"]
    count: Annotated[int, Field(ge=1)] = 1
    """How many of these devices the user has."""
    memory_bytes: Annotated[int, Field(ge=1)]
    bandwidth_bytes_per_s: Positive
    peak_flops: Annotated[dict[Dtype, Positive], Field(min_length=1)]
    """FLOP/s (operations per second for int8) by dtype."""
    l2_bytes: Annotated[int, Field(ge=1)] | None = None
    """The last cache before memory; null where unpublished."""
    compute_units: Annotated[int, Field(ge=1)] | None = None
    """Streaming multiprocessors, compute units, tensor cores or CPU cores, as the vendor counts."""
    link: Link | None = None
    """Between devices, the fastest one."""
    host_link: Link | None = None
    """To the host, and between the devices that ``link`` does not join."""
    power: Power | None = None
    price: Price | None = None
    sources: Annotated[str, Field(min_length=1)]
    confidence: Literal["high", "medium", "low"]
    default_efficiency: Efficiency = Efficiency()

    @property
    def calibrated(self) -> bool:
        """Whether predictions rest on measurements; no profile carries any yet."""
        return False

    def peak_flops_for(self, dtype: str) -> float:
        """Peak FLOP/s in ``dtype``; raises :class:`HardwareError` naming the dtypes the profile states."""
        for known, peak in self.peak_flops.items():
            if known == dtype:
                return peak
        raise HardwareError(f"{self.name} has no peak for {dtype}: choose one of {', '.join(self.peak_flops)}")

    def link_between(self, devices: int) -> Link:
        """The link that joins ``devices`` of this kind; raises :class:`HardwareError` where none does."""
        if self.link and (self.link.max_devices is None or devices <= self.link.max_devices):
            return self.link
        if self.host_link is None:
            raise HardwareError(f"{self.name} has no link that joins {devices} devices: use fewer per replica")
        return self.host_link

    def with_overrides(self, count: int | None = None, memory_bytes: int | None = None) -> HardwareProfile:
        """The same device in another number or with another memory size; None keeps what the profile says."""
        given = {"count": count, "memory_bytes": memory_bytes}
        changes = {field: value for field, value in given.items() if value is not None}
        for field, value in changes.items():
            if value < 1:
                raise HardwareError(f"{field} of {self.name} must be at least 1, not {value}")
        return self.model_copy(update=changes)


def load_hardware(name_or_path: str) -> HardwareProfile:
    """Load a shipped profile by name or alias, or any profile by the path of its .yaml file.

    Names ignore case, spaces, dashes and underscores: ``RTX 3090`` is ``rtx-3090``.
    Raises :class:`HardwareError` when there is no such profile or a file is malformed.
    """
    if name_or_path.lower().endswith((".yaml", ".yml")):
        return _read(Path(name_or_path).expanduser())
    wanted = _normal(name_or_path)
    files = _files()
    for file in files:
        if _normal(file.stem) == wanted:
            return _read(file)
    profiles = [_read(file) for file in files]
    for profile in profiles:
        if wanted in map(_normal, profile.aliases):
            return profile
    raise HardwareError(_unknown(name_or_path, profiles))


def list_hardware() -> list[str]:
    """Names of the shipped profiles, sorted; each is the name of its file."""
    return [file.stem for file in _files()]


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
