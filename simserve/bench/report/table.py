"""A run as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simserve.bench.report.lines import definitions, failure_sentences, figure_lines, heading, verdict_text
from simserve.bench.report.metrics import NAMES, confidence_ms, is_trusted, shown_metrics
from simserve.bench.report.words import Language, word
from simserve.bench.run import BenchRun
from simserve.bench.self_test.measure import SelfTest
from simserve.metrics.result import percentile_name

COLOURS = {"VALID": "green", "CLIENT-LIMITED": "yellow", "SATURATED": "yellow", "UNSTABLE": "red"}


def report(
    run: BenchRun,
    metrics: Sequence[str],
    percentiles: Sequence[float],
    language: Language = "en",
    self_test: SelfTest | None = None,
) -> RenderableType:
    """What was asked, latencies, throughput, the verdict, failures, notes, and what the figures mean."""
    shown = shown_metrics(run, metrics)
    verdict = Text.assemble((verdict_text(run, language), f"bold {COLOURS[run.verdict.word]}"))
    lines = Table.grid(padding=(0, 2))
    for label, value in figure_lines(run, language, self_test):
        lines.add_row(Text(label), Text(value))
    parts: list[RenderableType] = [Text(heading(run))]
    if shown:
        parts.append(latency_table(run, shown, percentiles, language))
    parts += [lines, verdict]
    parts += [Text(sentence) for sentence in failure_sentences(run)]
    parts += [Text(note) for note in run.notes]
    parts += [Text(line, style="dim") for line in definitions(shown, language)]
    return Group(*parts)


def latency_table(run: BenchRun, names: Sequence[str], percentiles: Sequence[float], language: Language) -> Table:
    """A row per latency: how many values, mean and its confidence, median, percentiles, how many are within its SLO.

    A percentile that too few values stand behind is left out and marked.
    """
    slos_s = run.slos_s
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(word("latency", language), no_wrap=True)
    columns = [word(key, language) for key in ("values", "mean", "median")]
    for column in (*columns, *map(percentile_name, percentiles), *([word("slo", language)] if slos_s else [])):
        table.add_column(column, justify="right", no_wrap=True)
    hidden = False
    for name in names:
        values = run.figures.latency(name, percentiles)
        cells = [NAMES[name], f"{values.count:,}", _mean(values.mean, confidence_ms(run, name))]
        cells.append(_ms(values.median))
        for percent, value in zip(percentiles, values.at, strict=True):
            hidden = hidden or not is_trusted(values.count, percent)
            cells.append(_ms(value) if is_trusted(values.count, percent) else "*")
        if slos_s:
            cells.append(_slo(run, name))
        table.add_row(*cells)
    if hidden:
        table.caption = word("too_few", language)
        table.caption_justify = "left"
    return table


def _slo(run: BenchRun, name: str) -> str:
    """How many of the values are within the limit; a tick for all."""
    limit_s = {str(slo): limit for slo, limit in run.slos_s.items()}.get(name)
    values = run.figures.values_s[name]
    if limit_s is None or not len(values):
        return ""
    share = float((values <= limit_s).mean())
    return "✓" if share == 1.0 else f"✗ {100 * share:.3g}%"


def _mean(seconds: float, confidence: float) -> str:
    return _ms(seconds) if math.isnan(confidence) else f"{_ms(seconds)} ± {_short(confidence)}"


def _ms(seconds: float) -> str:
    return _short(seconds * 1e3)


def _short(value: float) -> str:
    """Two digits after the point, one from 100 on: a table must fit 80 columns."""
    return "-" if math.isnan(value) else f"{value:,.2f}" if value < 100 else f"{value:,.1f}"
