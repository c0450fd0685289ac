"""Axes: the values that one setting takes in a sweep."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from simserve.errors import ConfigError
from simserve.sweep.settings import Value

MOST_VALUES = 100_000

RANGE = re.compile(r"(?P<first>-?[\d.]+):(?P<last>-?[\d.]+)(?::(?P<step>[\d.]+))?")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Range(_Strict):
    """Numbers from ``first`` to ``last``: every ``step``, or ``count`` of them, evenly spaced or in equal ratios."""

    first: float = Field(alias="from")
    last: float = Field(alias="to")
    step: Annotated[float, Field(gt=0)] | None = None
    count: Annotated[int, Field(ge=1, le=MOST_VALUES)] | None = None
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _is_one_range(self) -> Range:
        if (self.step is None) == (self.count is None):
            raise ValueError("give either step or count")
        if self.last < self.first:
            raise ValueError(f"a range from {self.first:g} to {self.last:g} is empty; turn it round")
        if self.scale == "log" and (self.step is not None or self.first <= 0):
            raise ValueError("a log range has a count and begins above 0")
        if self.step is not None and (self.last - self.first) / self.step > MOST_VALUES:
            raise ValueError(f"a range of more than {MOST_VALUES:,} values is not swept; take larger steps")
        return self

    def values(self, rng: np.random.Generator) -> list[Value]:
        if self.step is not None:
            count = math.floor((self.last - self.first) / self.step + 1e-9) + 1
            return [_plain(self.first + self.step * number) for number in range(count)]
        assert self.count is not None
        space = np.geomspace if self.scale == "log" else np.linspace
        return [_plain(float(value)) for value in space(self.first, self.last, self.count)]


class Random(_Strict):
    """``count`` numbers drawn between two ends, evenly or in equal ratios; whole ones if both ends are whole."""

    between: tuple[float, float] = Field(alias="random")
    count: Annotated[int, Field(ge=1, le=MOST_VALUES)]
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _has_room(self) -> Random:
        low, high = self.between
        if not low < high or (self.scale == "log" and low <= 0):
            raise ValueError(f"nothing can be drawn between {low:g} and {high:g}")
        return self

    def values(self, rng: np.random.Generator) -> list[Value]:
        low, high = self.between
        if self.scale == "log":
            drawn = np.exp(rng.uniform(math.log(low), math.log(high), self.count))
        else:
            drawn = rng.uniform(low, high, self.count)
        whole = low.is_integer() and high.is_integer()
        return [round(value) if whole else float(f"{value:.6g}") for value in drawn.tolist()]


KINDS = ("a list of values", "a range", "a random axis")


def _kind(given: object) -> str:
    """Which of :data:`KINDS` it is meant to be, so that an error is about that one."""
    if isinstance(given, (list, tuple)):
        return KINDS[0]
    return KINDS[2] if isinstance(given, Random) or (isinstance(given, dict) and "random" in given) else KINDS[1]


Axis = Annotated[
    Annotated[list[Value], Tag(KINDS[0])] | Annotated[Range, Tag(KINDS[1])] | Annotated[Random, Tag(KINDS[2])],
    Discriminator(_kind),
]
Axes = Mapping[str, Axis]


def axis_values(name: str, axis: Axis, rng: np.random.Generator) -> list[Value]:
    """What ``name`` takes, in order, each value once."""
    values = list(axis) if isinstance(axis, list) else axis.values(rng)
    if not values:
        raise ConfigError(f"the axis {name} has no values; give at least one")
    return list(dict.fromkeys(values))


def parse_axis(name: str, text: str, numeric: bool) -> list[Value]:
    """Values as on a command line: ``A100,NPU``, and for a ``numeric`` setting also ``1:20:1`` (first:last:step).

    A JSON object is one value, whatever commas are in it; several of them need a spec file.

    Raises :class:`ConfigError` for a range that is none.
    """
    if text.startswith("{"):
        return [text]
    found = RANGE.fullmatch(text) if numeric else None
    if found is None:
        return [_as_value(part) for part in split_list(text)]
    try:
        axis = Range.model_validate({"from": found["first"], "to": found["last"], "step": found["step"] or 1})
    except ValueError:
        raise ConfigError(f"--{name.replace('_', '-')} {text} is no range; write FIRST:LAST:STEP") from None
    return axis.values(np.random.default_rng(0))


def split_list(text: str) -> Sequence[str]:
    """``a,b`` in two."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _as_value(text: str) -> Value:
    """A number where it reads as one, and ``none`` for an option that is left out."""
    if text.lower() == "none":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _plain(value: float) -> Value:
    rounded = float(f"{value:.9g}")
    return int(rounded) if rounded.is_integer() else rounded
