"""A run as files that outlive it: requests as CSV and Parquet, the summary as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simserve.errors import ConfigError
from simserve.metrics.latency import e2e_s, tpot_s, ttft_s
from simserve.metrics.records import STATUS_NAMES, Records

if TYPE_CHECKING:
    import pyarrow

REQUESTS_CSV, REQUESTS_PARQUET, SUMMARY_JSON = "requests.csv", "requests.parquet", "summary.json"


def make_folder(folder: Path) -> None:
    """Make ``folder`` unless it is there; raises :class:`ConfigError` if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from None


def write_run(
    folder: Path, records: Records, result: Mapping[str, Any], beside: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write ``requests.csv``, ``requests.parquet`` and ``summary.json`` into ``folder``; returns their paths.

    ``beside`` are more columns for the requests. Files there by these names are replaced; the same run gives the same
    bytes. Raises :class:`ConfigError` if the folder cannot be written to.
    """
    from pyarrow import csv, parquet

    make_folder(folder)
    paths = [folder / name for name in (REQUESTS_CSV, REQUESTS_PARQUET, SUMMARY_JSON)]
    table = requests_table(records, beside or {})
    try:
        with paths[0].open("wb") as file:
            file.write((",".join(table.column_names) + "\n").encode())
            csv.write_csv(table, file, csv.WriteOptions(include_header=False, quoting_style="none"))
        parquet.write_table(table, paths[1])
        paths[2].write_text(to_json(result), encoding="utf-8")
    except OSError as error:
        raise _cannot_write(folder, error) from None
    return paths


def requests_table(records: Records, beside: Mapping[str, Any]) -> pyarrow.Table:
    """One row per request in order of arrival; times of what never happened are null (empty in CSV)."""
    import pyarrow

    milliseconds = {
        "ttft_ms": 1000 * ttft_s(records), "tpot_ms": 1000 * tpot_s(records), "e2e_ms": 1000 * e2e_s(records)
    }  # fmt: skip
    columns = {
        "arrival_s": records.arrival_s,
        "scheduled_s": records.scheduled_s,
        "first_token_s": records.first_token_s,
        "finish_s": records.finish_s,
        "input_tokens": records.input_tokens,
        "output_tokens": records.output_tokens,
        "cached_tokens": records.cached_tokens,
        "preemptions": records.preemptions,
        "status": np.array(STATUS_NAMES)[records.status],
        **milliseconds,
        **beside,
    }
    return pyarrow.table({name: pyarrow.array(column, from_pandas=True) for name, column in columns.items()})


def to_json(result: Mapping[str, Any]) -> str:
    """``result`` as one JSON object with a final newline."""
    return json.dumps(result, indent=2, allow_nan=False) + "\n"


def _cannot_write(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write to {folder}: {error.strerror or error}; give a folder that you may write to")
