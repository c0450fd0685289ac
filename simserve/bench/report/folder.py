"""Everything about a run in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simserve.bench.report.lines import figure_lines, heading, verdict_text
from simserve.bench.report.metrics import NAMES, shown_metrics
from simserve.bench.report.page import page
from simserve.bench.report.result_json import write_result
from simserve.bench.report.rows import COLUMNS, rows_of, write_csv, write_jsonl
from simserve.bench.report.words import Language
from simserve.bench.report.workbook import Rows, write_workbook
from simserve.bench.run import BenchRun
from simserve.bench.self_test.measure import SelfTest
from simserve.errors import ConfigError
from simserve.metrics.result import percentile_name

RESULT, CSV, JSONL, WORKBOOK, PAGE = "result.json", "requests.csv", "requests.jsonl", "report.xlsx", "report.html"


def write_folder(
    folder: Path,
    run: BenchRun,
    result: Mapping[str, Any],
    metrics: Sequence[str],
    percentiles: Sequence[float],
    language: Language = "en",
    self_test: SelfTest | None = None,
) -> list[Path]:
    """Write result, requests (CSV, JSON Lines), workbook and page; files there by these names are replaced.

    Returns what was written. Raises :class:`ConfigError` if the folder cannot be written to.
    """
    rows = rows_of(run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / CSV, rows)
        write_jsonl(folder / JSONL, run, rows)
        sheets = {"Summary": _summary(run, metrics, percentiles, language, self_test), "Requests": _requests(rows)}
        workbook = write_workbook(folder / WORKBOOK, sheets)
        (folder / PAGE).write_text(page(run, metrics, percentiles, language, self_test), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror or error}; give another --out") from None
    write_result(folder / RESULT, result)
    return [folder / RESULT, folder / CSV, folder / JSONL, *workbook, folder / PAGE]


def _requests(rows: Sequence[Mapping[str, Any]]) -> Rows:
    return [list(COLUMNS), *([row[name] for name in COLUMNS] for row in rows)]


def _summary(
    run: BenchRun, metrics: Sequence[str], percentiles: Sequence[float], language: Language, self_test: SelfTest | None
) -> Rows:
    """Latencies in ms, then every other line of the report."""
    rows: list[list[str | int | float | None]] = [
        ["latency, ms", "values", "mean", "median", "std", *map(percentile_name, percentiles)]
    ]
    for name in shown_metrics(run, metrics):
        values = run.figures.latency(name, percentiles)
        seconds = (values.mean, values.median, values.std, *values.at)
        rows.append([NAMES[name], values.count, *(value * 1e3 for value in seconds)])
    rows += [[], [heading(run)], [verdict_text(run, language)]]
    return rows + [[label, text] for label, text in figure_lines(run, language, self_test)]
