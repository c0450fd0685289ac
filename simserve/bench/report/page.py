"""One HTML page about a run that needs nothing else: no script, no font and no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from simserve.bench.measure.figures import tokens_per_chunk
from simserve.bench.report.lines import (
    definitions,
    failure_sentences,
    figure_lines,
    heading,
    verdict_text,
)
from simserve.bench.report.metrics import NAMES, is_trusted, shown_metrics
from simserve.bench.report.svg import Bars, Line, chart, timeline
from simserve.bench.report.words import Language, word
from simserve.bench.run import BenchRun
from simserve.bench.self_test.measure import SelfTest
from simserve.metrics.result import percentile_name

Floats = npt.NDArray[np.float64]

CDF_POINTS = 200
WINDOWS = 40
MOST_BARS = 1500

STYLE = """
:root{color-scheme:light dark;--fg:#1c2430;--dim:#66707d;--bg:#fff;--grid:#e2e6ec;--a:#2563a8;--b:#c2571a;--c:#2c7a4b;
--bad:#b3261e;--wait:#b8bec8}
@media(prefers-color-scheme:dark){:root{--fg:#e6e9ee;--dim:#98a2af;--bg:#161a20;--grid:#2c333d;--a:#6ea8e6;--b:#e79a63;
--c:#6bbd8b;--bad:#ef7d75;--wait:#555e6b}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:1180px;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.3rem 0}
.dim{color:var(--dim)}.verdict{font-weight:600}.charts{display:flex;flex-wrap:wrap;gap:1rem}
.charts figure{flex:1 1 480px;margin:0}figcaption{font-weight:600}svg{width:100%;height:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.2rem .8rem .2rem 0;text-align:right;border-bottom:1px solid var(--grid)}
td:first-child,th:first-child{text-align:left}table.plain td{text-align:left;border:0}
.grid{stroke:var(--grid)}.tick,.legend{font-size:11px;fill:var(--dim)}.mid{text-anchor:middle}.end{text-anchor:end}
.legend{text-anchor:end;font-weight:600}.line{fill:none;stroke-width:1.8}
.line.a{stroke:var(--a)}.line.b{stroke:var(--b)}.line.c{stroke:var(--c)}
.legend.a{fill:var(--a)}.legend.b{fill:var(--b)}.legend.c{fill:var(--c)}
.bar.wait{stroke:var(--wait)}.bar.a{stroke:var(--a)}.bar.c{stroke:var(--c)}.bar.bad{stroke:var(--bad)}
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}
"""


def page(
    run: BenchRun,
    metrics: Sequence[str],
    percentiles: Sequence[float],
    language: Language = "en",
    self_test: SelfTest | None = None,
) -> str:
    """The whole page as text."""
    shown = shown_metrics(run, metrics)
    title = word("page_title", language, model=run.plan.model)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="dim">{escape(heading(run))}; {run.started:%Y-%m-%d %H:%M:%S}</p>',
        f'<p class="verdict">{escape(verdict_text(run, language))}</p>',
        _section(word("figures", language), _latencies(run, shown, percentiles, language)),
        _lines(run, language, self_test),
        _list(word("what_failed", language), failure_sentences(run)),
        _list(word("notes", language), run.notes),
        _section(word("distributions", language), _distributions(run, shown, language)),
        _section(word("over_time", language), _over_time(run, language)),
        _section(word("timeline", language), _timeline(run, language)),
        _list(word("definitions", language), definitions(shown, language)),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    lang = "en" if language == "en" else "zh"
    body = "".join(parts)
    return f'<!doctype html><html lang="{lang}"><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n'


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}" if content else ""


def _list(title: str, sentences: Sequence[str]) -> str:
    return _section(title, "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences))


def _latencies(run: BenchRun, shown: Sequence[str], percentiles: Sequence[float], language: Language) -> str:
    names = [word(key, language) for key in ("latency", "values", "mean", "median", "std")]
    rows = [[*names, *map(percentile_name, percentiles)]]
    for name in shown:
        values = run.figures.latency(name, percentiles)
        cells = [NAMES[name], f"{values.count:,}", *(_ms(one) for one in (values.mean, values.median, values.std))]
        for percent, value in zip(percentiles, values.at, strict=True):
            cells.append(_ms(value) if is_trusted(values.count, percent) else "*")
        rows.append(cells)
    note = f'<p class="dim">{escape(word("too_few", language))}</p>' if any("*" in row for row in rows) else ""
    cells_of = ["".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in _tagged(rows)]
    return "<table>" + "".join(f"<tr>{cells}</tr>" for cells in cells_of) + "</table>" + note


def _tagged(rows: Sequence[Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    return [("th" if number == 0 else "td", row) for number, row in enumerate(rows)]


def _lines(run: BenchRun, language: Language, self_test: SelfTest | None) -> str:
    rows = figure_lines(run, language, self_test)
    cells = "".join(f'<tr><td class="dim">{escape(label)}</td><td>{escape(text)}</td></tr>' for label, text in rows)
    return f'<table class="plain">{cells}</table>'


def _figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def _distributions(run: BenchRun, shown: Sequence[str], language: Language) -> str:
    """How many of the requests were how fast: a curve for each latency, up to its 99.5th percentile."""
    figures = []
    for name in shown:
        values = np.sort(run.figures.values_s[name]) * 1e3
        share = np.linspace(0.0, 0.995, CDF_POINTS)
        line = Line("", np.quantile(values, share).tolist(), (share * 100).tolist(), "a")
        unit = word("time_unit", language)
        figures.append(_figure(NAMES[name], chart([line], unit, f"{word('share', language)}, %", y_max=100.0)))
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _over_time(run: BenchRun, language: Language) -> str:
    ok = [one for one in run.outcomes if one.ok]
    duration_s = run.figures.duration_s
    if not ok or duration_s <= 0:
        return ""
    edges = np.linspace(0.0, duration_s, WINDOWS + 1)
    sent = np.array([one.sent_s - run.start_s for one in ok])
    seconds, unit = word("seconds", language), word("time_unit", language)
    figures = []
    for name, values in (("ttft", [one.ttft_s for one in ok]), ("e2el", [one.e2el_s for one in ok])):
        milliseconds = np.array(values) * 1e3
        if np.isnan(milliseconds).all():
            continue
        lines = [
            Line(f"p{percent}", edges[:-1].tolist(), _by_window(sent, milliseconds, edges, percent), style)
            for percent, style in ((99, "b"), (90, "c"), (50, "a"))
        ]
        figures.append(_figure(NAMES[name], chart(lines, seconds, unit)))
    figures.append(_figure(word("in_flight", language), chart([_in_flight(run)], seconds, "")))
    tokens = _tokens_per_second(run, edges)
    if tokens is not None:
        figures.append(_figure(word("tokens_over_time", language), chart([tokens], seconds, "")))
    return f'<div class="charts">{"".join(figures)}</div>'


def _by_window(at_s: Floats, values: Floats, edges: Floats, percent: float) -> list[float]:
    """A percentile of the values in each window; NaN where there are none."""
    place = np.digitize(at_s, edges) - 1
    inside = [values[(place == window) & ~np.isnan(values)] for window in range(len(edges) - 1)]
    return [float(np.percentile(some, percent)) if len(some) else math.nan for some in inside]


def _in_flight(run: BenchRun) -> Line:
    times = np.array([one.sent_s for one in run.outcomes] + [one.end_s for one in run.outcomes]) - run.start_s
    changes = np.repeat([1, -1], len(run.outcomes))
    order = np.lexsort((changes, times))
    level = np.cumsum(changes[order])
    at = np.linspace(0.0, run.figures.duration_s, 10 * WINDOWS)
    place = np.searchsorted(times[order], at, side="right") - 1
    return Line("", at.tolist(), np.where(place >= 0, level[place], 0).astype(float).tolist(), "a")


def _tokens_per_second(run: BenchRun, edges: Floats) -> Line | None:
    some = [one for one in run.outcomes if one.ok and one.token_times_s]
    if not some:
        return None
    times = np.concatenate([np.asarray(one.token_times_s) for one in some]) - run.start_s
    weights = np.concatenate([tokens_per_chunk(one) for one in some])
    counts, _ = np.histogram(times, edges, weights=weights)
    return Line("", edges[:-1].tolist(), (counts / np.diff(edges)).tolist(), "a")


def _timeline(run: BenchRun, language: Language) -> str:
    """A bar per request: its wait, then until its first output, then until its end."""
    total = len(run.outcomes)
    if not total:
        return ""
    chosen = np.unique(np.linspace(0, total - 1, min(total, MOST_BARS)).astype(int)).tolist()
    outcomes = [run.outcomes[place] for place in chosen]
    spans: dict[str, list[tuple[int, float, float]]] = {"wait": [], "a": [], "c": [], "bad": []}
    for row, one in enumerate(outcomes):
        due, sent, end = (time_s - run.start_s for time_s in (one.due_s, one.sent_s, one.end_s))
        begin = one.ready_s - run.start_s if run.plan.shape.is_closed_loop else due
        spans["wait"].append((row, begin, max(sent, begin)))
        if not one.ok:
            spans["bad"].append((row, sent, end))
            continue
        first = end if math.isnan(one.ttft_s) else sent + one.ttft_s
        spans["a"].append((row, sent, first))
        spans["c"].append((row, first, end))
    kinds = [
        Bars([row for row, _, _ in span], [start for _, start, _ in span], [end for _, _, end in span], style)
        for style, span in spans.items()
    ]
    names = {"wait": "waiting", "a": "first_output", "c": "generating", "bad": "failed_bar"}
    colours = {"wait": "wait", "a": "a", "c": "c", "bad": "bad"}
    legend = "".join(
        f'<span class="key" style="background:var(--{colours[style]})"></span>{escape(word(name, language))}'
        for style, name in names.items()
    )
    count = word("shown_of", language, shown=len(outcomes), total=total)
    return f'<p class="dim">{escape(count)}{legend}</p>' + timeline(kinds, len(outcomes), word("seconds", language))


def _ms(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1e3:,.2f}"
