"""What a real server did, as others wrote it down: the requests it got, and the latencies and totals measured.

Four forms are told apart by their columns or keys: a CSV with one row per request; the result JSON of
``vllm bench serve`` or SGLang's; a CSV with one row of totals per run; and token rates over time beside a workload.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simserve.calibration.bench_result import figures_of, is_bench_result, latencies_of, read_result, workload_of
from simserve.calibration.figures import Floats, Measured, MeasuredRun
from simserve.calibration.run_settings import FILES, settings_beside, settings_in
from simserve.calibration.run_totals import is_totals, read_totals
from simserve.errors import WorkloadError
from simserve.workload import Workload, prefix_from_hits

PERCENTILES = (50, 90, 95, 99)
BENCH_SUFFIXES = (".json", ".jsonl")
PER_REQUEST = {"itl_ms": "TPOT", "ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2el_ms": "E2E", "e2e_ms": "E2E"}
"""Columns with a latency of each request; the mean of a request's gaps is its TPOT. The later of two counts."""
HIT_COLUMNS = ("max_prefix_hit_tokens", "cached_tokens")


def read_measured_run(path: Path, line: int | None = None) -> MeasuredRun:
    """Read a run from a file, or from a folder that holds one; of a table of totals, the one in this ``line``.

    ``meta.json`` and the like beside it (see :mod:`simserve.calibration.run_settings`) give the engine's settings.
    Raises :class:`WorkloadError` in one sentence for a file that is none of the forms, or a folder with several.
    """
    if not path.exists():
        raise WorkloadError(f"{path} does not exist; give a measured run, a file or its folder")
    file = _only_run_in(path) if path.is_dir() else path
    if file.suffix in BENCH_SUFFIXES:
        return _from_bench_json(file)
    rows = _rows(file)
    columns = set(rows[0])
    if _is_per_request(columns):
        return _from_requests(file, rows)
    if is_totals(columns):
        return read_totals(file, rows, line)
    if _is_rates(columns):
        return _from_rates(file, rows)
    raise WorkloadError(
        f"{file}: columns {', '.join(rows[0])} are no measured run; give one row per request (arrival_s, input_tokens, "
        "output_tokens, ttft_ms, ...), one row of totals, or a vllm bench serve result"
    )


def _only_run_in(folder: Path) -> Path:
    files = [file for file in sorted(folder.iterdir()) if _is_run(file)]
    if len(files) == 1:
        return files[0]
    found = ", ".join(file.name for file in files)
    what = f"several runs ({found}): give one of the files" if files else "no measured run"
    raise WorkloadError(f"{folder} holds {what}")


def _is_run(file: Path) -> bool:
    if file.suffix in BENCH_SUFFIXES:
        return file.name not in FILES and is_bench_result(file)
    if file.suffix != ".csv":
        return False
    columns = set(_rows(file)[0])
    if _is_rates(columns):  # of use only where nobody wrote down the requests
        return not (file.parent / "meta.json").exists()
    return _is_per_request(columns) or is_totals(columns)


def _rows(file: Path) -> list[dict[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WorkloadError(f"{file} cannot be read as CSV ({error})") from None
    if not rows:
        raise WorkloadError(f"{file} has no rows")
    return rows


def _column(file: Path, rows: Sequence[dict[str, str]], name: str) -> Floats:
    values = []
    for line, row in enumerate(rows, 2):
        try:
            values.append(float(row[name]) if row[name] != "" else math.nan)
        except (ValueError, TypeError, KeyError):
            raise WorkloadError(f"{file} line {line}: {name} is {row.get(name)!r}; it must be a number") from None
    return np.array(values)


def _is_per_request(columns: set[str]) -> bool:
    return {"arrival_s", "input_tokens", "output_tokens"} <= columns and bool(columns & set(PER_REQUEST))


def _from_requests(file: Path, rows: list[dict[str, str]]) -> MeasuredRun:
    """Requests that ended without an answer are left out."""
    columns = {name: _column(file, rows, name) for name in ("arrival_s", "input_tokens", "output_tokens")}
    answered = columns["output_tokens"] > 0
    if not answered.any():
        raise WorkloadError(f"{file}: no request has output_tokens, so there is nothing to compare")
    order = np.flatnonzero(answered)[np.argsort(columns["arrival_s"][answered], kind="stable")]
    arrival_s = columns["arrival_s"][order]
    lengths = {name: columns[name][order].astype(np.int64) for name in ("input_tokens", "output_tokens")}
    hits = next((_column(file, rows, name)[order] for name in HIT_COLUMNS if name in rows[0]), None)
    prefix = None
    if hits is not None and np.any(hits > 0):
        prefix = prefix_from_hits(lengths["input_tokens"], np.nan_to_num(hits).astype(np.int64))
    workload = Workload(
        file.name, arrival_s - arrival_s[0], lengths["input_tokens"], lengths["output_tokens"], prefix,
        dropped_requests=int((~answered).sum()),
    )  # fmt: skip
    latencies = {
        metric: _column(file, rows, name)[order] / 1e3 for name, metric in PER_REQUEST.items() if name in rows[0]
    }
    figures = [figure for metric, values in latencies.items() for figure in statistics_of(metric, values)]
    end_s = float(np.nanmax(workload.arrival_s + latencies["E2E"])) if "E2E" in latencies else math.nan
    figures += _totals(workload, end_s)
    return MeasuredRun(file.parent.name, workload, None, figures, latencies, settings_beside(file))


def statistics_of(metric: str, values_s: Floats) -> list[Measured]:
    """Mean and percentiles of one latency, one value per request, NaN where a request has none."""
    values_s = values_s[~np.isnan(values_s)]
    if not len(values_s):
        return []
    at = np.percentile(values_s, PERCENTILES)
    return [
        Measured(metric, "mean", float(values_s.mean())),
        *(Measured(metric, f"p{p}", float(v)) for p, v in zip(PERCENTILES, at, strict=True)),
    ]


def _totals(workload: Workload, duration_s: float) -> list[Measured]:
    if math.isnan(duration_s):
        return []
    tokens = int(workload.output_tokens.sum())
    return [
        Measured("duration", "total", duration_s),
        Measured("output tokens/s", "total", tokens / duration_s),
    ]


def _is_rates(columns: set[str]) -> bool:
    return "t_start_s" in columns or {"t", "gen_throughput"} <= columns


def _from_rates(file: Path, rows: list[dict[str, str]]) -> MeasuredRun:
    """Generation rates per interval, and ``workload*.csv`` beside them: the run ends with the last token."""
    workloads = sorted(file.parent.glob("workload*.csv"))
    if len(workloads) != 1:
        raise WorkloadError(f"{file} needs one workload*.csv beside it to say what was asked")
    from simserve.workload import read_trace

    first_s = float(_rows(workloads[0])[0]["arrival_s"])
    workload = read_trace(str(workloads[0]))
    start_s, rate = _column(file, rows, "t_start_s"), _column(file, rows, "vllm_gen_tok_s")
    width_s = float(start_s[1] - start_s[0])
    last = int(np.flatnonzero(rate > 0)[-1])
    usual = float(np.median(rate[max(0, last - 4) : last]))
    # The last interval is filled as far as its tokens reach at the rate before it.
    end_s = float(start_s[last]) + width_s * min(1.0, float(rate[last]) / usual)
    figures = _totals(workload, end_s - first_s)
    return MeasuredRun(file.parent.name, workload, None, figures, settings=settings_beside(file))


def _from_bench_json(file: Path) -> MeasuredRun:
    """The result of ``vllm bench serve``; with --save-detailed the lengths and times are those that were sent."""
    content = read_result(file)
    workload = workload_of(content, file)
    settings = settings_in(_engine_part(content), str(file)) | settings_beside(file)
    users = content.get("max_concurrency")
    return MeasuredRun(
        file.stem, workload, None if users is None else int(users), figures_of(content), latencies_of(content), settings
    )


def _engine_part(content: dict[str, Any]) -> dict[str, Any]:
    """What a result says of the server: the model, and what ``--metadata`` or ``--backend sglang`` told."""
    model = content.get("model_id") or content.get("model")
    return {name: value for name, value in content.items() if isinstance(value, str | int | float)} | {"model": model}
