"""Sizes and durations as people write them in a file: ``10 MB``, ``7 days``, or plain bytes and seconds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}

SECONDS = {
    "ms": 0.001,
    **dict.fromkeys(("s", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400),
}


def read_bytes(value: object) -> object:
    """``"10 MB"`` as 10,000,000; what is not text is left for pydantic to judge."""
    return value if not isinstance(value, str) else times(value, BYTES, "a size such as 10 MB", "b")


def read_seconds(value: object) -> object:
    """``"5 minutes"`` as 300.0; what is not text is left for pydantic to judge."""
    return value if not isinstance(value, str) else times(value, SECONDS, "a duration such as 30 s or 7 days", "s")


def read_bytes_or_seconds(value: object) -> object:
    """``"10 MB"`` or ``"1 day"``, told apart by the unit, as ``{"bytes": n}`` or ``{"seconds": x}``."""
    example = "a size or a duration with its unit, such as 10 MB or 1 day"
    if not isinstance(value, str):
        raise _must_be(example)
    unit = value.strip().lstrip("0123456789. ").lower()
    return {"bytes": times(value, BYTES, example)} if unit in BYTES else {"seconds": times(value, SECONDS, example)}


def read_count_or_seconds(value: object) -> object:
    """``10`` or ``"7 days"`` as ``{"count": n}`` or ``{"seconds": x}``."""
    if isinstance(value, str):
        return {"seconds": times(value, SECONDS, "a number of files or a duration such as 7 days")}
    return {"count": value}


def times(text: str, units: Mapping[str, float], example: str, plain: str = "") -> float | int:
    """``text`` as a number times one of ``units``, or times ``plain`` without one; raises what pydantic understands."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = units.get(match[2].lower() or plain) if match else None
    if match is None or unit is None:
        raise _must_be(example)
    product = float(match[1]) * unit
    return int(product) if units is BYTES else product


def _must_be(example: str) -> PydanticCustomError:
    return PydanticCustomError("quantity", "it must be {example}", {"example": example})


Bytes = Annotated[int, BeforeValidator(read_bytes), Field(ge=1)]
Seconds = Annotated[float, BeforeValidator(read_seconds), Field(gt=0, allow_inf_nan=False)]
SecondsFrom0 = Annotated[float, BeforeValidator(read_seconds), Field(ge=0, allow_inf_nan=False)]
