"""Statistics of turns, column by column, as tables, JSON and a workbook."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from simserve.bench.multi_turn.run import MultiTurnRun
from simserve.bench.multi_turn.turns import Turn
from simserve.bench.report.workbook import Cell, Rows, write_workbook

COLUMNS = (
    "ttft_ms", "tpot_ms", "latency_ms", "input_num_turns", "input_num_tokens", "output_num_tokens",
    "output_num_chunks", "output_num_first_chunk_tokens", "approx_cached_percent", "late_ms",
)  # fmt: skip
"""Columns that have statistics."""

TAILS = ((99.0, 100), (99.9, 1_000), (99.99, 10_000))
"""Percentiles, each shown from so many values on."""

Statistics = dict[str, dict[str, float]]


def statistics(turns: Sequence[Turn]) -> Statistics:
    """Count, mean, deviation, least, quartiles, tails and most of every column, values that are none left out."""
    return {name: _column([float(getattr(turn, name)) for turn in turns]) for name in COLUMNS}


def _column(values: list[float]) -> dict[str, float]:
    some = np.array([value for value in values if not math.isnan(value)])
    if not len(some):
        return {"count": 0.0}
    percents = [25.0, 50.0, 75.0, 90.0, *(percent for percent, least in TAILS if len(some) >= least)]
    at = zip(percents, np.percentile(some, percents).tolist(), strict=True)
    return {
        "count": float(len(some)),
        "mean": float(some.mean()),
        "std": float(some.std(ddof=1)) if len(some) > 1 else 0.0,
        "min": float(some.min()),
        **{f"{percent:g}%": value for percent, value in at},
        "max": float(some.max()),
    }


def after_warmup(turns: Sequence[Turn], percent: float) -> list[Turn]:
    """The turns without the first ``percent`` of them, which are in order of their start."""
    return list(turns[math.floor(len(turns) * percent / 100) :])


def summary_object(run: MultiTurnRun, parameters: Mapping[str, Any], percents: Sequence[float]) -> dict[str, Any]:
    """Everything but the single turns, ready for JSON."""
    blocks = {}
    for percent in percents:
        turns = after_warmup(run.turns, percent)
        blocks[f"{percent:g}%"] = {"turns": len(turns), "runtime_sec": span_s(turns), "statistics": statistics(turns)}
    return {
        "parameters": dict(parameters),
        "runtime_sec": run.runtime_s,
        "requests_per_sec": run.requests_per_s,
        "warmup_runtime_sec": run.warmup_s,
        "turns": len(run.turns),
        "conversations": len(run.said),
        "unfinished_conversations": run.unfinished,
        "failed_conversations": run.broken,
        "without_first": blocks,
    }


def span_s(turns: Sequence[Turn]) -> float:
    """From the first start to the last end."""
    if not turns:
        return 0.0
    return (max(turn.end_time_ms for turn in turns) - min(turn.start_time_ms for turn in turns)) / 1e3


def statistics_rows(found: Statistics) -> Rows:
    """A header, then a row per column of :data:`COLUMNS`."""
    names = list(dict.fromkeys(name for column in found.values() for name in column if name != "max"))
    names = [*names, "max"]
    rows: list[list[Cell]] = [["", *names]]
    for column, values in found.items():
        rows.append([column, *(values.get(name) for name in names)])
    return rows


def turn_rows(turns: Sequence[Turn]) -> Rows:
    """A header, then every turn; with the time since the turn before of the same conversation."""
    names = [field.name for field in fields(Turn)]
    rows: list[list[Cell]] = [[*names, "time_between_user_turns_sec"]]
    last: dict[str, float] = {}
    for turn in turns:
        before = last.get(turn.conversation_id)
        last[turn.conversation_id] = turn.start_time_ms
        since = None if before is None else (turn.start_time_ms - before) / 1e3
        rows.append([*asdict(turn).values(), since])
    return rows


def write_excel(
    folder: Path, run: MultiTurnRun, parameters: Mapping[str, Any], percents: Sequence[float], now: datetime
) -> list[Path]:
    """``statistics_<clients>_clients__<time>.xlsx`` with the sheets Summary and Raw data, or the same as CSV."""
    rows: list[Sequence[Cell]] = [["parameter", "value"]]
    rows += [[name, str(value)] for name, value in parameters.items()]
    rows += [["runtime_sec", run.runtime_s], ["requests_per_sec", run.requests_per_s]]
    rows += [["warmup_runtime_sec", run.warmup_s]]
    for percent in percents:
        turns = after_warmup(run.turns, percent)
        rows += [[], [f"without the first {percent:g}%", len(turns), "turns", span_s(turns), "s"]]
        rows += statistics_rows(statistics(turns))
    name = f"statistics_{run.clients}_clients__{now:%d-%m-%Y_%H-%M-%S}.xlsx"
    return write_workbook(folder / name, {"Summary": rows, "Raw data": turn_rows(run.turns)})
