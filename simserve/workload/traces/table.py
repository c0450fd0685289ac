"""A trace file as columns of unconverted values, which knows the line to blame for a bad one."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import orjson

from simserve.errors import WorkloadError


@dataclass(frozen=True)
class Table:
    """Columns by name, each with one value per row; ``lines[row]`` is the row's line number in ``source``.

    Values are strings from CSV and whatever was written from JSON; a key that a JSON row lacks is None there.
    """

    source: str
    columns: dict[str, Sequence[Any]]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)

    def tokens(self, name: str, least: int = 1) -> npt.NDArray[np.int64]:
        """Column ``name`` as token counts. Raises :class:`WorkloadError` naming the line of the first bad one."""
        return self.whole_numbers(name, f"a whole number of tokens, at least {least}", least)

    def whole_numbers(self, name: str, must: str, least: int) -> npt.NDArray[np.int64]:
        """Column ``name`` as integers; ``must`` says in an error what a value must be."""
        numbers = self.convert(name, must, _whole, np.dtype(np.int64))
        too_small = np.flatnonzero(numbers < least)
        if too_small.size:
            self.blame(int(too_small[0]), name, must)
        return numbers

    def numbers(self, name: str, must: str) -> npt.NDArray[np.float64]:
        """Column ``name`` as finite floats; ``must`` says in an error what a value must be."""
        numbers = self.convert(name, must, float, np.dtype(np.float64))
        unusable = np.flatnonzero(~np.isfinite(numbers))
        if unusable.size:
            self.blame(int(unusable[0]), name, must)
        return numbers

    def convert(self, name: str, must: str, to: Callable[[Any], Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Column ``name`` passed through ``to``, whose ValueError, TypeError or OverflowError marks a bad value."""
        values = self.columns[name]
        bad = (ValueError, TypeError, OverflowError)
        try:
            return np.fromiter(map(to, values), dtype, len(values))
        except bad:
            for row, value in enumerate(values):
                try:
                    np.fromiter([to(value)], dtype, 1)
                except bad:
                    self.blame(row, name, must)
            raise

    def blame(self, row: int, name: str, must: str) -> NoReturn:
        """Raise the error for the value of column ``name`` in ``row``."""
        value = self.columns[name][row]
        found = "missing" if value is None else _shown(value)
        raise WorkloadError(f"{self.source} line {self.lines[row]}: {name} is {found}; it must be {must}")

    def keep(self, rows: npt.NDArray[np.bool_]) -> Table:
        """The table of those rows only for which ``rows`` is true."""
        kept = np.flatnonzero(rows).tolist()
        columns: dict[str, Sequence[Any]] = {
            name: [values[row] for row in kept] for name, values in self.columns.items()
        }
        return Table(self.source, columns, [self.lines[row] for row in kept])


def parse_table(source: str, content: bytes) -> Table:
    """The table in ``content``: JSON Lines if it begins with a brace, else CSV with a header.

    Raises :class:`WorkloadError`, naming the line where there is one, for what is neither.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WorkloadError(f"{source} is not a text file in UTF-8; give a CSV or JSON Lines trace") from error
    if not text.strip():
        raise WorkloadError(f"{source} is empty; give a trace with at least one request")
    table = _json_lines(source, text) if text.lstrip().startswith("{") else _csv(source, text)
    if not len(table):
        raise WorkloadError(f"{source} has a header but no rows; give a trace with at least one request")
    return table


def _csv(source: str, text: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""))
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        header = next(row for row in reader if row)
        for row in reader:
            if len(row) == len(header):
                rows.append(row)
                lines.append(reader.line_num)
            elif row:
                raise WorkloadError(
                    f"{source} line {reader.line_num}: {len(row)} columns where the header has {len(header)};"
                    " complete or remove the line"
                )
    except csv.Error as error:
        raise WorkloadError(f"{source} line {reader.line_num}: not valid CSV ({error}); repair the line") from error
    names = [name.strip() for name in header]
    if len(set(names)) < len(names):
        raise WorkloadError(f"{source} has two columns of the same name ({', '.join(names)}); rename or remove one")
    return Table(source, dict(zip(names, zip(*rows, strict=True), strict=bool(rows))), lines)


def _json_lines(source: str, text: str) -> Table:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise WorkloadError(f"{source} line {number}: not valid JSON ({error}); repair the line") from error
        if not isinstance(row, dict):
            raise WorkloadError(f"{source} line {number}: {_shown(row)} is not a JSON object; repair the line")
        rows.append(row)
        lines.append(number)
    # Keys in the order of the first row, then those that only later rows have.
    names = dict.fromkeys(name for row in rows for name in row)
    return Table(source, {name: [row.get(name) for row in rows] for name in names}, lines)


def _whole(value: object) -> int:
    if isinstance(value, str):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    raise ValueError


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
