"""A sweep as a table: one row per run, with its axes first, whether it meets the SLO, what it costs, all figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from simserve.errors import ConfigError
from simserve.metrics.result import Result
from simserve.sweep.expand import Job, axis_names
from simserve.sweep.jobs import Outcome
from simserve.sweep.money import cost, devices_of
from simserve.sweep.run import Sweep
from simserve.sweep.settings import command

Row = dict[str, Any]


def rows_of(sweep: Sweep) -> list[Row]:
    """A row for each job, in their order: a search has one, of the highest load that met the SLO."""
    names = axis_names(sweep.jobs)
    return [_row(job, outcome, names) for job, outcome in zip(sweep.jobs, sweep.outcomes, strict=True)]


def write_tables(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """``results.csv`` and ``results.parquet``; raises :class:`ConfigError` if they cannot be written."""
    table = pd.DataFrame(list(rows))
    csv, parquet = folder / "results.csv", folder / "results.parquet"
    try:
        table.to_csv(csv, index=False)
        pa.parquet.write_table(pa.Table.from_pandas(_of_one_type(table), preserve_index=False), parquet)
    except OSError as error:
        raise ConfigError(f"cannot write into {folder}: {error.strerror}") from None
    return [csv, parquet]


def _row(job: Job, outcome: Outcome, names: Sequence[str]) -> Row:
    row: Row = {name: job.point.get(name, job.settings.get(name)) for name in names}
    if "seed" in job.point:
        row["seed"] = job.point["seed"]
    search = outcome.search
    if search:
        walls = search["walls"]
        row |= {
            f"max_{search['of']}": search["load"],
            "missed_at": search["missed_at"],
            "binds": walls[0]["limit"] if walls else None,
            "because": walls[0]["because"] if walls else None,
            "runs": len(search["probes"]),
        }
    row["slo_met"] = _is_met(job, outcome.result)
    row |= cost(outcome.settings, outcome.result) | {"devices": devices_of(outcome.settings)}
    row |= {name: value for name, value in (outcome.result or {}).items() if name not in row}
    return row | {"error": outcome.error, "command": command(outcome.settings), "key": job.key}


def _is_met(job: Job, result: Result | None) -> bool | None:
    if job.slo is None:
        return None
    return result is not None and job.slo.met(result)


def _of_one_type(table: pd.DataFrame) -> pd.DataFrame:
    """Columns whose values are of several types as text: Parquet has one type in a column."""
    table = table.copy()
    for name in table.columns:
        kinds = {type(value) for value in table[name].dropna()}
        if len(kinds) > 1 and not kinds <= {int, float}:
            table[name] = table[name].map(lambda value: None if pd.isna(value) else str(value))
    return table
