"""Reading a CSV file of measurements, refusing with line and reason what is broken or is of something else."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from simserve.calibration.points import Floats
from simserve.errors import HardwareError


def read_columns(
    file: Path, numbers: tuple[str, ...], *, only: Mapping[str, str] | None = None, constant: tuple[str, ...] = ()
) -> dict[str, Floats]:
    """The columns ``numbers`` as floats, all at least 0 and finite.

    ``only`` are columns and the one value they may hold; those in ``constant`` may hold any, but the same throughout.
    Raises :class:`HardwareError` naming file, line and reason.
    """
    columns: dict[str, list[float]] = {name: [] for name in numbers}
    seen: dict[str, str] = {}
    for line, row in read_rows(file, (*numbers, *(only or {}), *constant)):
        for name, wanted in (only or {}).items():
            if row[name] != wanted:
                raise HardwareError(
                    f"{file}, line {line}: {name} is '{row[name]}', but only '{wanted}' can be used here"
                )
        for name in constant:
            if seen.setdefault(name, row[name]) != row[name]:
                raise HardwareError(f"{file}, line {line}: {name} changes from '{seen[name]}' to '{row[name]}'")
        for name in numbers:
            columns[name].append(number(file, line, name, row[name]))
    return {name: np.array(values) for name, values in columns.items()}


def read_rows(file: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row with its line number; every row has all columns, and the ``needed`` ones are there."""
    with _open(file) as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in needed if name not in (reader.fieldnames or [])]
        if missing:
            raise HardwareError(
                f"{file}, line 1: has no column {', '.join(missing)}: it is not the table expected here"
            )
        empty = True
        for row in reader:
            empty = False
            if None in row or None in row.values():
                raise HardwareError(f"{file}, line {reader.line_num}: has not as many values as there are columns")
            yield reader.line_num, row
    if empty:
        raise HardwareError(f"{file}, line 2: there are no measurements in this table")


def number(file: Path, line: int, name: str, text: str) -> float:
    """``text`` as a number; raises :class:`HardwareError` where it is none, negative, or a time that is not above 0."""
    try:
        value = float(text)
    except ValueError:
        raise HardwareError(f"{file}, line {line}: {name} is '{text}', which is not a number") from None
    is_time = any(part in name for part in ("latency", "time", "_ns", "_us"))
    if not math.isfinite(value) or value < 0 or (is_time and value == 0):
        raise HardwareError(f"{file}, line {line}: {name} is {text}, which cannot have been measured")
    return value


def _open(file: Path) -> IO[str]:
    try:
        if file.suffix == ".gz":
            return gzip.open(file, "rt", encoding="utf-8", newline="")
        return file.open(encoding="utf-8", newline="")
    except OSError as error:
        raise HardwareError(f"{file}: cannot be read ({error.strerror or error})") from None
