"""One HTML file about a sweep that needs nothing else: Plotly and all data are in it, nothing comes from a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from simserve import __version__
from simserve.sweep.report.answer import answer
from simserve.sweep.report.figures import figures_of
from simserve.sweep.report.findings import Findings, number
from simserve.sweep.rows import Row

MOST_ROWS = 5000
"""In the table; the files have all."""

USUAL_COLUMNS = (
    "binds", "slo_met", "median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms", "p99_e2el_ms",
    "request_throughput", "output_throughput", "kv_usage", "preemptions", "usd_per_hour",
    "usd_per_million_output_tokens", "error", "command",
)  # fmt: skip


def page(findings: Findings) -> str:
    """The whole file as text."""
    figures = figures_of(findings)
    first, *others = answer(findings)
    charts = "".join(
        f'<figure><figcaption>{escape(figure.title)}</figcaption><div class="chart" id="chart-{place}"></div>'
        f'<p class="dim">{escape(figure.note)}</p></figure>'
        for place, figure in enumerate(figures)
    )
    data = _json([{"data": figure.data, "layout": figure.layout} for figure in figures])
    script = f"const FIGURES={data};\n{_static('page.js')}"
    body = (
        f"<header><h1>{escape(findings.title)}</h1>"
        f'<p class="answer" id="answer">{escape(first)}</p>'
        f"{''.join(f'<p>{escape(sentence)}</p>' for sentence in others)}</header>"
        f'<section class="charts">{charts}</section>'
        f"{_table(findings)}{_spec(findings)}"
        f'<footer class="dim">SimServe {__version__}. Click a heading to sort, a command to copy it.</footer>'
    )
    title = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(findings.title)}'
    icon = '<link rel="icon" href="data:,">'
    return (
        f'<!doctype html><html lang="en"><head>{title}</title>{icon}<style>{_static("page.css")}</style></head>'
        f"<body>{body}<script>{_plotly()}</script><script>{script}</script></body></html>\n"
    )


def columns_of(findings: Findings) -> list[str]:
    """Columns of the table: the axes, what was searched, the SLO's figures, then the usual ones."""
    searched = [findings.load_key, "missed_at"] if findings.load_key else []
    asked = [term.key for term in findings.slo.terms] if findings.slo else []
    wanted = dict.fromkeys([*findings.names, *searched, *asked, *USUAL_COLUMNS])
    return [name for name in wanted if name and any(row.get(name) is not None for row in findings.rows)]


def _table(findings: Findings) -> str:
    columns = columns_of(findings)
    heads = "".join(f'<th><button type="button">{escape(_heading(name))}</button></th>' for name in columns)
    rows = "".join(_table_row(row, columns) for row in findings.rows[:MOST_ROWS])
    left_out = len(findings.rows) - MOST_ROWS
    note = f'<p class="dim">{left_out:,} more rows are in results.csv.</p>' if left_out > 0 else ""
    return (
        f'<section><h2>All settings</h2><div class="scroll"><table id="rows"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{note}</section>"
    )


def _table_row(row: Row, columns: Sequence[str]) -> str:
    style = {True: ' class="good"', False: ' class="bad"'}.get(row["slo_met"], "")
    return f"<tr{style}>{''.join(_cell(name, row.get(name)) for name in columns)}</tr>"


def _cell(name: str, value: Any) -> str:
    if name == "command":
        return f'<td class="command"><code>{escape(str(value))}</code></td>'
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, (int, float)):
        return f'<td class="number" data-value="{value}">{number(value)}</td>'
    return f"<td>{escape('' if value is None else str(value))}</td>"


def _heading(name: str) -> str:
    return name.removeprefix("max_") if name.startswith("max_request") else name.replace("_", " ")


def _spec(findings: Findings) -> str:
    if not findings.spec_text:
        return ""
    return f"<details><summary>What was asked for</summary><pre>{escape(findings.spec_text)}</pre></details>"


def _json(value: object) -> str:
    """JSON that may stand in a script: no ``</script>``, no NaN."""
    return json.dumps(_finite(value)).replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and value not in (0.0,) and not abs(value) < float("inf") else value


def _static(name: str) -> str:
    return (files("simserve.sweep.report") / "static" / name).read_text()


def _plotly() -> str:
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
