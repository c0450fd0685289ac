"""Tables as an Excel workbook, or as CSV files where xlsxwriter is not installed."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

Cell = str | int | float | None
Rows = Sequence[Sequence[Cell]]

WIDEST = 60


def write_workbook(path: Path, sheets: Mapping[str, Rows]) -> list[Path]:
    """Write ``sheets`` (the first row of each is its header) to ``path``, an ``.xlsx``; returns what was written.

    Without xlsxwriter each sheet becomes ``<path's stem>.<sheet>.csv`` beside it.
    """
    try:
        import xlsxwriter
    except ImportError:
        return [_write_csv(path, name, rows) for name, rows in sheets.items()]
    with xlsxwriter.Workbook(str(path), {"nan_inf_to_errors": True, "strings_to_urls": False}) as book:
        bold = book.add_format({"bold": True})
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name[:31])
            for number, row in enumerate(rows):
                for column, cell in enumerate(row):
                    sheet.write(number, column, _plain(cell), bold if number == 0 else None)
            for column in range(max(map(len, rows), default=0)):
                texts = [str(row[column]) for row in rows[:200] if column < len(row) and row[column] is not None]
                sheet.set_column(column, column, min(max(map(len, texts), default=8) + 2, WIDEST))
            sheet.freeze_panes(1, 0)
    return [path]


def _write_csv(path: Path, name: str, rows: Rows) -> Path:
    target = path.with_name(f"{path.stem}.{name.lower().replace(' ', '_')}.csv")
    with target.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[_plain(cell) for cell in row] for row in rows])
    return target


def _plain(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and math.isnan(cell) else cell
