"""A sweep as its readers look at it: settings compared by the mean over their seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from simserve.sweep.expand import axis_names
from simserve.sweep.jobs import Outcome
from simserve.sweep.rows import Row, rows_of
from simserve.sweep.run import Sweep
from simserve.sweep.slo import Slo
from simserve.sweep.statistics import mean_and_half_width

HALF_WIDTH = "_ci95"
"""Ends the name of the half-width of a mean's 95 % confidence interval."""


@dataclass(frozen=True)
class Findings:
    """``rows`` has one row for each combination of axes (``names``), a mean over ``seeds``; ``outcomes`` every run."""

    title: str
    names: Sequence[str]
    rows: Sequence[Row]
    runs: Sequence[Row]
    """A row for each run, seeds apart."""
    outcomes: Sequence[Outcome]
    slo: Slo | None
    searched: str | None
    """The load that was searched; None for a grid."""
    seeds: int
    spec_text: str

    @property
    def load_key(self) -> str | None:
        return None if self.searched is None else f"max_{self.searched}"

    @property
    def done(self) -> list[Row]:
        """Rows that have figures."""
        return [row for row in self.rows if row.get("request_throughput") is not None]

    @property
    def good(self) -> list[Row]:
        """Rows that meet the SLO, or all that have figures where there is none."""
        return [row for row in self.done if row["slo_met"] is not False]

    def label(self, row: Row) -> str:
        """The settings of ``row`` in a few words."""
        if not self.names:
            return str(row.get("hardware") or "the run")
        return ", ".join(named(name, row.get(name)) for name in self.names)

    @property
    def judged_by(self) -> str:
        """The latency that stands for all where only one can be shown."""
        return self.slo.terms[0].key if self.slo else "p99_e2el_ms"


def named(name: str, value: object) -> str:
    """``A100`` for hardware, ``max num seqs 64`` for others."""
    if name in ("hardware", "model", "trace"):
        return str(value)
    if isinstance(value, bool):
        return f"{'' if value else 'no '}{name.replace('_', ' ')}"
    return f"{name.replace('_', ' ')} {number(value)}"


def number(value: object) -> str:
    """A figure with as many digits as people read."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    digits = 0 if abs(value) >= 1000 else (1 if abs(value) >= 100 else (2 if abs(value) >= 1 else 3))
    return f"{value:,.{digits}f}"


def findings_of(sweep: Sweep, title: str = "", spec_text: str = "") -> Findings:
    """What ``sweep`` found."""
    rows = rows_of(sweep)
    first = sweep.jobs[0]
    names = axis_names(sweep.jobs)
    seeds = len({job.settings.get("seed") for job in sweep.jobs})
    return Findings(
        title=title or _usual_title(rows),
        names=names,
        rows=_over_seeds(rows, names) if seeds > 1 else rows,
        runs=rows,
        outcomes=sweep.outcomes,
        slo=first.slo,
        searched=first.capacity.of if first.capacity else None,
        seeds=seeds,
        spec_text=spec_text,
    )


def best(rows: Sequence[Row], by: Callable[[Row], float | None]) -> Row | None:
    """The row with the least figure; None if no row has one."""
    known = [(value, place) for place, row in enumerate(rows) if (value := by(row)) is not None]
    return rows[min(known)[1]] if known else None


def _usual_title(rows: Sequence[Row]) -> str:
    models = sorted({str(row["model"]) for row in rows if row.get("model")})
    return f"{', '.join(models)}: {len(rows):,} runs" if models else f"{len(rows):,} runs"


def _over_seeds(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in names), []).append(row)
    return [_mean(group, names) for group in groups.values()]


def _mean(group: Sequence[Row], names: Sequence[str]) -> Row:
    """Numbers become means with a confidence interval, other values are those of the first seed; the SLO is met if it
    is met with every seed.
    """
    mean: Row = {}
    for name, value in group[0].items():
        values = [row.get(name) for row in group]
        known = [float(one) for one in values if isinstance(one, (int, float)) and not isinstance(one, bool)]
        if name in names or name == "seed" or len(known) < len(group):
            mean[name] = value
        else:
            mean[name], half_width = mean_and_half_width(known)
            mean[name + HALF_WIDTH] = half_width
    met = [row["slo_met"] for row in group]
    mean["slo_met"] = None if met[0] is None else all(met)
    mean["error"] = next((row["error"] for row in group if row["error"]), None)
    return mean
