"""What a real server did, as others wrote it down: the requests it got, and the latencies and totals measured.

Four forms are told apart by their columns or keys: a CSV with one row per request; the result JSON of
``vllm bench serve``; a CSV with one row of totals per run; and token rates over time beside a workload.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.errors import WorkloadError
from simserve.workload import Workload, prefix_from_hits, synthetic_workload

Floats = npt.NDArray[np.float64]

PERCENTILES = (50, 90, 95, 99)
LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E", "e2el": "E2E"}
HIT_COLUMNS = ("max_prefix_hit_tokens", "cached_tokens")


@dataclass(frozen=True)
class Measured:
    """One figure: ``statistic`` is "mean" or "p50" .. "p99" of a latency in seconds, or the "total" of a metric."""

    metric: str
    statistic: str
    value: float


@dataclass(frozen=True)
class MeasuredRun:
    """A workload, who sent it (``users`` at a time, or None: when due), and what was measured.

    ``latencies_s`` holds one value per request where the file gives them: by metric, for plots.
    ``settings`` is what the run says of its engine, by the names of :class:`simserve.config.EngineOptions`.
    """

    name: str
    workload: Workload
    users: int | None
    figures: list[Measured]
    latencies_s: dict[str, Floats] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def read_measured_run(path: Path) -> MeasuredRun:
    """Read a run from a file, or from a folder that holds one; ``meta.json`` beside it gives the engine's settings.

    Raises :class:`WorkloadError` in one sentence for a file that is none of the forms, or a folder with several.
    """
    if not path.exists():
        raise WorkloadError(f"{path} does not exist; give a measured run, a file or its folder")
    file = _only_run_in(path) if path.is_dir() else path
    if file.suffix == ".json":
        return _from_bench_json(file)
    rows = _rows(file)
    for is_form, read in FORMS:
        if is_form(set(rows[0])):
            return read(file, rows)
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
    if file.suffix == ".json":
        return file.name != "meta.json"
    if file.suffix != ".csv":
        return False
    columns = set(_rows(file)[0])
    return any(is_form(columns) for is_form, _ in FORMS) and not (
        _is_rates(columns) and (file.parent / "meta.json").exists()
    )


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
    return {"arrival_s", "input_tokens", "output_tokens"} <= columns and bool(columns & {f"{m}_ms" for m in LATENCIES})


def _from_requests(file: Path, rows: list[dict[str, str]]) -> MeasuredRun:
    arrival_s = _column(file, rows, "arrival_s")
    order = np.argsort(arrival_s, kind="stable")
    lengths = {name: _column(file, rows, name).astype(np.int64)[order] for name in ("input_tokens", "output_tokens")}
    hits = next((_column(file, rows, name).astype(np.int64)[order] for name in HIT_COLUMNS if name in rows[0]), None)
    prefix = None if hits is None or not hits.any() else prefix_from_hits(lengths["input_tokens"], hits)
    workload = Workload(
        file.name, arrival_s[order] - arrival_s.min(), lengths["input_tokens"], lengths["output_tokens"], prefix
    )
    latencies = {
        LATENCIES[short]: _column(file, rows, f"{short}_ms")[order] / 1e3
        for short in LATENCIES
        if f"{short}_ms" in rows[0]
    }
    figures = [figure for metric, values in latencies.items() for figure in statistics_of(metric, values)]
    end_s = max((workload.arrival_s + latencies["E2E"]).tolist()) if "E2E" in latencies else math.nan
    figures += _totals(workload, end_s)
    return MeasuredRun(file.parent.name, workload, None, figures, latencies, _settings(file.parent / "meta.json"))


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


def _settings(meta: Path) -> dict[str, Any]:
    """Engine settings that a recorder of vLLM runs left beside the requests."""
    if not meta.exists():
        return {}
    content = json.loads(meta.read_text(encoding="utf-8"))
    engine = content.get("engine_kwargs", {})
    known = ("tensor_parallel_size", "max_num_seqs", "max_num_batched_tokens", "max_model_len", "dtype")
    settings = {name: engine[name] for name in known if engine.get(name) is not None}
    cache = content.get("kv_cache", {})
    names = {
        "block_size": "block_size",
        "enable_prefix_caching": "enable_prefix_caching",
        "num_gpu_blocks": "num_gpu_blocks",
    }
    settings |= {ours: cache[theirs] for ours, theirs in names.items() if cache.get(theirs) is not None}
    return settings | ({"model": content["model"]} if "model" in content else {})


def _is_totals(columns: set[str]) -> bool:
    return any(re.fullmatch(r"(ttft|tpot|itl|e2el?)_(mean|p\d+)_ms", name) for name in columns)


def _from_totals(file: Path, rows: list[dict[str, str]]) -> MeasuredRun:
    """One run, of equal requests: so many at once, or ``max_concurrency`` users without a pause."""
    row = {name: text for name, text in rows[0].items() if text}
    count = _whole(file, row, "num_prompts", "n")
    inputs = _whole(file, row, "input_len") if "input_len" in row else _whole(file, row, "total_input_tokens") // count
    outputs = (
        _whole(file, row, "output_len") if "output_len" in row else _whole(file, row, "total_output_tokens") // count
    )
    users = _whole(file, row, "max_concurrency") if "max_concurrency" in row else None
    workload = synthetic_workload(count, math.inf, inputs, outputs, seed=0)
    figures = []
    for name, text in row.items():
        match = re.fullmatch(r"(ttft|tpot|itl|e2el?)_(mean|p\d+)_ms", name)
        if match:
            figures.append(Measured(LATENCIES[match[1]], match[2], float(text) / 1e3))
    for name, metric in (("duration_s", "duration"), ("req_s", "requests/s"), ("out_tok_s", "output tokens/s")):
        if name in row:
            figures.append(Measured(metric, "total", float(row[name])))
    return MeasuredRun(file.parent.name, workload, users, figures)


def _whole(file: Path, row: dict[str, str], *names: str) -> int:
    for name in names:
        if name in row:
            try:
                return int(float(row[name]))
            except ValueError:
                raise WorkloadError(f"{file} line 2: {name} is {row[name]!r}; it must be a whole number") from None
    raise WorkloadError(f"{file} lacks a column {' or '.join(names)}")


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
    return MeasuredRun(file.parent.name, workload, None, _totals(workload, end_s - first_s))


def _from_bench_json(file: Path) -> MeasuredRun:
    """The result of ``vllm bench serve``; with --save-detailed the lengths are those that were sent."""
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkloadError(f"{file} cannot be read as JSON ({error})") from None
    if not {"completed", "total_input_tokens", "total_output_tokens"} <= set(content):
        raise WorkloadError(f"{file} is no result of vllm bench serve: it lacks completed or total_*_tokens")
    count = int(content["completed"])
    rate = content.get("request_rate", "inf")
    inputs, outputs = content["total_input_tokens"] // count, content["total_output_tokens"] // count
    workload = synthetic_workload(count, math.inf if rate == "inf" else float(rate), inputs, outputs, seed=0)
    if content.get("input_lens") and content.get("output_lens"):
        lists = [np.array(content[name], dtype=np.int64) for name in ("input_lens", "output_lens")]
        errors = content.get("errors") or [""] * len(lists[0])
        sent, answered = (lengths[[not error for error in errors]] for lengths in lists)  # failed ones had no answer
        workload = Workload(workload.name, workload.arrival_s, sent, answered)
    figures = []
    for key, value in content.items():
        match = re.fullmatch(r"(mean|median|p\d+)_(ttft|tpot|itl|e2el)_ms", key)
        if match and value is not None:
            statistic = "p50" if match[1] == "median" else match[1]
            figures.append(Measured(LATENCIES[match[2]], statistic, float(value) / 1e3))
    for key, metric in (
        ("duration", "duration"),
        ("request_throughput", "requests/s"),
        ("output_throughput", "output tokens/s"),
    ):
        if key in content:
            figures.append(Measured(metric, "total", float(content[key])))
    return MeasuredRun(file.stem, workload, content.get("max_concurrency"), figures)


FORMS: list[tuple[Callable[[set[str]], bool], Callable[[Path, list[dict[str, str]]], MeasuredRun]]] = [
    (_is_per_request, _from_requests),
    (_is_totals, _from_totals),
    (_is_rates, _from_rates),
]
"""CSV forms: how to recognise one by its columns, and its reader."""
