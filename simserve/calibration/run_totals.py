"""Tables with a whole run in each line: its lengths, who asked, and totals and percentiles of what was measured."""

from __future__ import annotations

import math
import re
from pathlib import Path

from simserve.calibration.figures import LATENCIES, Measured, MeasuredRun
from simserve.calibration.run_settings import settings_beside, settings_in
from simserve.errors import WorkloadError
from simserve.workload import synthetic_workload

LATENCY = re.compile(r"(ttft|tpot|itl|e2el?)_(mean|p\d+(?:\.\d+)?)_ms")
TOTALS = {"duration_s": "duration", "req_s": "requests/s", "out_tok_s": "output tokens/s"}


def is_totals(columns: set[str]) -> bool:
    """Whether a table with these ``columns`` has a run in each line."""
    return any(LATENCY.fullmatch(name) for name in columns)


class Row:
    """One line of the table of ``file``; numbers that are none are refused with the line."""

    def __init__(self, file: Path, rows: list[dict[str, str]], line: int | None) -> None:
        lines = f"lines 2 to {len(rows) + 1}"
        if line is None and len(rows) > 1:
            raise WorkloadError(f"{file} holds {len(rows)} runs, in {lines}: choose one with --line")
        line = 2 if line is None else line
        if not 2 <= line <= len(rows) + 1:
            raise WorkloadError(f"{file} has no run in line {line}: they are in {lines}")
        self.file, self.where = file, f"{file} line {line}"
        self.values = {name: text for name, text in rows[line - 2].items() if name and text}

    def number(self, name: str) -> float:
        try:
            value = float(self.values[name])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise WorkloadError(f"{self.where}: {name} is {self.values[name]!r}; it must be a number")
        return value

    def count(self, *names: str) -> int:
        """What the first of ``names`` that there is says."""
        name = next((name for name in names if name in self.values), None)
        if name is None:
            raise WorkloadError(f"{self.file} lacks a column {' or '.join(names)}")
        value = self.number(name)
        if value < 1 or value != int(value):
            raise WorkloadError(f"{self.where}: {name} is {self.values[name]}; it must be a whole number from 1")
        return int(value)


def read_totals(file: Path, rows: list[dict[str, str]], line: int | None) -> MeasuredRun:
    """The run in ``line``, of equal requests: all at once, or by ``max_concurrency`` users without a pause.

    Raises :class:`WorkloadError` where the table holds several runs and none was chosen, and for a broken line.
    """
    row = Row(file, rows, line)
    count = row.count("num_prompts", "n")
    inputs, outputs = (
        row.count(f"{which}_len") if f"{which}_len" in row.values else row.count(f"total_{which}_tokens") // count
        for which in ("input", "output")
    )
    users = row.count("max_concurrency") if "max_concurrency" in row.values else None
    workload = synthetic_workload(count, math.inf, inputs, outputs, seed=0)
    found = [(LATENCY.fullmatch(name), name) for name in row.values]
    figures = [Measured(LATENCIES[match[1]], match[2], row.number(name) / 1e3) for match, name in found if match]
    figures += [Measured(ours, "total", row.number(name)) for name, ours in TOTALS.items() if name in row.values]
    settings = settings_in(row.values, row.where) | settings_beside(file)
    return MeasuredRun(file.parent.name, workload, users, figures, settings=settings)
