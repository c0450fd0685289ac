"""What to sweep: a YAML file, or the same from options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from simserve.errors import ConfigError
from simserve.sweep.axes import KINDS, Axis
from simserve.sweep.settings import Value, normal_name
from simserve.sweep.slo import Slo, parse_slo


def _normal_names(given: Any) -> Any:
    return {normal_name(str(name)): value for name, value in given.items()} if isinstance(given, dict) else given


def _listed(given: Any) -> Any:
    """One value is a list of one."""
    if isinstance(given, dict):
        return {name: value if isinstance(value, (list, dict)) else [value] for name, value in given.items()}
    return given


Settings = Annotated[dict[str, Value], BeforeValidator(_normal_names)]
Axes = Annotated[dict[str, Axis], BeforeValidator(_normal_names), BeforeValidator(_listed)]
Condition = Annotated[dict[str, list[Value]], BeforeValidator(_normal_names), BeforeValidator(_listed)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Conditional(_Strict):
    """Where all of ``when`` holds, ``axes`` are swept too and settings are ``set``."""

    when: Condition
    axes: Axes = Field(default_factory=dict)
    set: Settings = Field(default_factory=dict)


class Capacity(_Strict):
    """Search the highest ``of`` that meets the SLO, to within ``tolerance`` (a fraction), in place of an axis.

    Loads are looked for between ``least`` and ``most``, beginning with ``first``. With ``requests_per_load`` a run at
    load L has at least so many times L requests: seconds of traffic where the load is a rate, requests of each user
    where it is users.
    """

    of: str = "request_rate"
    first: Annotated[float, Field(gt=0)] = 4.0
    least: Annotated[float, Field(gt=0)] = 0.01
    most: Annotated[float, Field(gt=0)] = 1e5
    tolerance: Annotated[float, Field(gt=0, le=0.5)] = 0.02
    requests_per_load: Annotated[float, Field(gt=0)] | None = None
    walls: bool = True

    @field_validator("of")
    @classmethod
    def _by_its_name(cls, of: str) -> str:
        return normal_name(of)

    @model_validator(mode="after")
    def _is_in_order(self) -> Capacity:
        if not self.least <= self.first <= self.most:
            raise ValueError(f"first is to lie from least {self.least:g} to most {self.most:g}, not {self.first:g}")
        return self


class SweepSpec(_Strict):
    """A sweep: ``base`` settings for all runs, ``axes`` that are crossed, ``conditional`` ones, ``seeds`` for each.

    ``skip`` leaves combinations out. With ``slo`` results are judged, with ``capacity`` the load is searched.
    """

    title: str = ""
    base: Settings = Field(default_factory=dict)
    axes: Axes = Field(default_factory=dict)
    conditional: tuple[Conditional, ...] = ()
    skip: tuple[Condition, ...] = ()
    seeds: tuple[int, ...] = (0,)
    slo: str | None = None
    capacity: Capacity | None = None

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds_by_number(cls, given: Any) -> Any:
        return tuple(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given

    @field_validator("seeds")
    @classmethod
    def _some_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("give one seed or more, each once and none below 0")
        return seeds

    @model_validator(mode="after")
    def _fits_together(self) -> SweepSpec:
        if self.slo is not None:
            parse_slo(self.slo)
        if self.capacity is not None:
            if self.slo is None:
                raise ValueError("capacity is the highest load that meets an SLO; give slo too")
            if self.capacity.of in {*self.base, *self.axes}:
                raise ValueError(f"capacity searches {self.capacity.of}; leave it out of base and axes")
        for name in ("seed", *self.base):
            if name in self.axes:
                raise ValueError(
                    "seeds has a key of its own; it cannot be an axis"
                    if name == "seed"
                    else f"{name} is both in base and an axis; leave it out of one"
                )
        return self

    @property
    def limits(self) -> Slo | None:
        return None if self.slo is None else parse_slo(self.slo)


def read_spec(path: Path) -> SweepSpec:
    """The sweep that a YAML file describes; raises :class:`ConfigError` naming the key at fault."""
    try:
        given = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, Mapping):
        raise ConfigError(f"{path} describes no sweep; it has keys such as base, axes and slo")
    return spec_from(given, str(path))


def spec_from(given: Mapping[str, Any], name: str) -> SweepSpec:
    """The same of what was read already; ``name`` begins the sentence of an error."""
    try:
        return SweepSpec.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in KINDS)
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{name}: {place + ': ' if place else ''}{reason}") from None
