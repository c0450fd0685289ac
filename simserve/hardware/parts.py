"""What every piece of a profile's file is made of: refused spelling mistakes, dtypes, and rows of numbers as text."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

Dtype = Literal["bfloat16", "float16", "float32", "int8", "fp8"]


class Part(BaseModel):
    """Base of everything in a profile: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _numbers(value: Any) -> Any:
    if isinstance(value, int | float):  # a row of one number is no text to YAML
        return (float(value),)
    if not isinstance(value, str):
        return value
    return tuple(float(word) for word in value.split())


Numbers = Annotated[
    tuple[float, ...],
    BeforeValidator(_numbers),
    PlainSerializer(lambda numbers: " ".join(f"{number:g}".removeprefix("0") or "0" for number in numbers)),
    Field(min_length=1),
]


def check_growing(what: str, numbers: tuple[float, ...]) -> None:
    """Raise ``ValueError`` unless ``numbers``, called ``what``, grow from left to right."""
    if any(b <= a for a, b in pairwise(numbers)):
        raise ValueError(f"{what} must grow from left to right")
