"""Charts of a sweep as Plotly figures: plain dictionaries of data and layout, drawn by the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simserve.metrics.result import Result
from simserve.sweep.pareto import pareto_front
from simserve.sweep.report.answer import UNITS, money_text
from simserve.sweep.report.findings import HALF_WIDTH, Findings, number
from simserve.sweep.rows import Row

COLOURS = ("#2563a8", "#c2571a", "#2c7a4b", "#8a4fa3", "#b3261e", "#4a7d8c", "#a37c1f", "#5b6470")
MOST_CURVES = 12
BEYOND = 1.6
"""Loads are drawn up to so many times the highest that meets the SLO: what was tried far beyond says nothing."""

LOADS = ("request_rate", "max_concurrency", "rate_scale", "burst_rate", "speed")
"""Settings that say how much is asked for."""


@dataclass(frozen=True)
class Figure:
    """One chart: Plotly's ``data`` and ``layout``; ``note`` says in a sentence how to read it."""

    title: str
    note: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]


def figures_of(findings: Findings) -> list[Figure]:
    """All charts that the sweep gives something for."""
    fronts = (_cost_against_latency(findings), _user_against_device(findings))
    made = (*fronts, *_load_curves(findings), _heat_map(findings))
    return [figure for figure in made if figure is not None]


def _cost_against_latency(findings: Findings) -> Figure | None:
    key = "usd_per_million_output_tokens"
    rows = [row for row in findings.done if row.get(key) and row.get(findings.judged_by) is not None]
    if len(rows) < 2:
        return None
    latency = _latency_name(findings.judged_by)
    points = [(float(row[key]), float(row[findings.judged_by])) for row in rows]
    return _front(
        findings, rows, points, "Cost against latency", "USD per million output tokens", f"{latency}, ms",
        "Down and to the left is better; the line joins settings that none beats in both.", _slo_limit(findings),
    )  # fmt: skip


def _user_against_device(findings: Findings) -> Figure | None:
    rows = [row for row in findings.done if row.get("median_tpot_ms")]
    if len(rows) < 2:
        return None
    users = [1000.0 / float(row["median_tpot_ms"]) for row in rows]
    devices = [float(row["output_throughput"]) / int(row["devices"]) for row in rows]
    points = list(zip(users, devices, strict=True))
    front = [(-x, -y) for x, y in points]
    return _scatter(
        findings, rows, points, pareto_front(front), "Throughput per user and per device",
        "tokens/s that a user sees (median)", "output tokens/s per device",
        "Up and to the right is better; the line joins settings that none beats in both.",
    )  # fmt: skip


def _front(
    findings: Findings, rows: Sequence[Row], points: Sequence[tuple[float, float]], title: str, x: str, y: str,
    note: str, limit: float | None,
) -> Figure:  # fmt: skip
    figure = _scatter(findings, rows, points, pareto_front(points), title, x, y, note)
    figure.layout["shapes"] = _limit_line(limit)
    figure.layout["yaxis"] |= {"type": "log"} if max(y for _, y in points) > 20 * min(y for _, y in points) else {}
    return figure


def _scatter(
    findings: Findings, rows: Sequence[Row], points: Sequence[tuple[float, float]], front: Sequence[int], title: str,
    x: str, y: str, note: str,
) -> Figure:  # fmt: skip
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(str(row.get("hardware_profile") or ""), []).append(place)
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [points[place][0] for place in places],
            "y": [points[place][1] for place in places],
            "text": [_hover(findings, rows[place]) for place in places],
            "hovertemplate": f"%{{text}}<br>{x}: %{{x:.4g}}<br>{y}: %{{y:.4g}}<extra></extra>",
            "marker": {
                "color": COLOURS[count % len(COLOURS)],
                "size": 9,
                "symbol": ["circle" if rows[place]["slo_met"] is not False else "x-thin-open" for place in places],
            },
        }
        for count, (name, places) in enumerate(groups.items())
    ]
    line = {
        "type": "scatter", "mode": "lines", "name": "best", "hoverinfo": "skip",
        "line": {"color": "#888", "dash": "dot"},
        "x": [points[place][0] for place in front], "y": [points[place][1] for place in front],
    }  # fmt: skip
    return Figure(title, note, [*data, line], {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}})


def _load_curves(findings: Findings) -> list[Figure]:
    """Each latency of the SLO over the load, a curve for each setting."""
    axis = findings.searched or next((name for name in findings.names if name in LOADS), None)
    if axis is None:
        return []
    keys = [term.key for term in findings.slo.terms] if findings.slo else ["p99_ttft_ms", "p99_tpot_ms"]
    curves = _searched_curves(findings) if findings.searched else _axis_curves(findings, axis)
    return [_curves(findings, curves, axis, key) for key in keys] if curves else []


Curve = tuple[str, list[tuple[float, Result]]]


def _searched_curves(findings: Findings) -> list[Curve]:
    probes = {outcome.key: outcome.search["probes"] for outcome in findings.outcomes if outcome.search}
    rows = sorted(
        (row for row in findings.rows if row["key"] in probes), key=lambda row: -(row.get(findings.load_key or "") or 0)
    )
    return [
        (findings.label(row), [(load, result) for load, result in probes[row["key"]]]) for row in rows[:MOST_CURVES]
    ]


def _axis_curves(findings: Findings, axis: str) -> list[Curve]:
    groups: dict[str, list[tuple[float, Result]]] = {}
    others = [name for name in findings.names if name != axis]
    for row in findings.done:
        if isinstance(row.get(axis), (int, float)):
            label = ", ".join(f"{name.replace('_', ' ')} {row.get(name)}" for name in others) or "all"
            groups.setdefault(label, []).append((float(row[axis]), row))
    curves = [(label, sorted(points, key=lambda point: point[0])) for label, points in groups.items()]
    return [curve for curve in curves if len(curve[1]) > 1][:MOST_CURVES]


def _curves(findings: Findings, curves: Sequence[Curve], axis: str, key: str) -> Figure:
    data: list[dict[str, Any]] = []
    for count, (label, points) in enumerate(curves):
        colour = COLOURS[count % len(COLOURS)]
        known = [(load, result) for load, result in points if result.get(key) is not None]
        data += _band(known, key, colour)
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": label, "line": {"color": colour},
                "x": [load for load, _ in known], "y": [result[key] for _, result in known],
                "hovertemplate": f"{label}<br>load %{{x:.4g}}: %{{y:.4g}} ms<extra></extra>",
            }
        )  # fmt: skip
    limit = next((term.limit_ms for term in findings.slo.terms if term.key == key), None) if findings.slo else None
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": UNITS.get(axis, axis.replace("_", " "))}},
        "yaxis": {"title": {"text": f"{_latency_name(key)}, ms"}, "type": "log"},
        "shapes": _limit_line(limit),
    }
    most = max((float(row[findings.load_key]) for row in findings.done), default=0.0) if findings.load_key else 0.0
    if most:
        layout["xaxis"]["range"] = [0.0, BEYOND * most]
    note = "The dashed line is the SLO." if limit else ""
    return Figure(f"{_latency_name(key)} against load", note, data, layout)


def _band(points: Sequence[tuple[float, Result]], key: str, colour: str) -> list[dict[str, Any]]:
    """What the profile's uncertainty, or chance over seeds, allows, as an area."""
    edges = [(load, *edge) for load, result in points if (edge := _edges(result, key)) is not None]
    if not edges:
        return []
    x = [load for load, _, _ in edges]
    return [
        {
            "type": "scatter", "mode": "lines", "fill": "toself", "fillcolor": colour, "opacity": 0.15,
            "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False,
            "x": [*x, *reversed(x)], "y": [*(low for _, low, _ in edges), *(high for *_, high in reversed(edges))],
        }
    ]  # fmt: skip


def _edges(result: Result, key: str) -> tuple[float, float] | None:
    low, high, half_width = result.get(f"{key}_low"), result.get(f"{key}_high"), result.get(key + HALF_WIDTH)
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        return float(low), float(high)
    value = result[key]
    if isinstance(half_width, (int, float)) and isinstance(value, (int, float)):
        return max(value - half_width, 1e-3), value + half_width
    return None


def _heat_map(findings: Findings) -> Figure | None:
    """The first two axes against each other; where there are more, each cell is the best over them."""
    counts = {name: len({row.get(name) for row in findings.rows}) for name in findings.names}
    names = [name for name in findings.names if counts[name] > 1][:2]
    if len(names) < 2:
        return None
    key = findings.load_key or findings.judged_by
    sign = -1.0 if findings.searched else 1.0
    columns, lines = ([*dict.fromkeys(row.get(name) for row in findings.rows)] for name in names)
    cells: list[list[float | None]] = [[None] * len(columns) for _ in lines]
    for row in findings.done:
        if row.get(key) is not None:
            line, column = lines.index(row.get(names[1])), columns.index(row.get(names[0]))
            known = cells[line][column]
            cells[line][column] = float(row[key]) if known is None else sign * min(sign * known, sign * float(row[key]))
    what = (
        f"most {UNITS.get(findings.searched, findings.searched)}" if findings.searched else _latency_name(key) + ", ms"
    )
    data = {
        "type": "heatmap", "x": [_category(value) for value in columns], "y": [_category(value) for value in lines],
        "z": cells, "text": [[number(value) for value in line] for line in cells], "texttemplate": "%{text}",
        "colorscale": "Blues", "reversescale": findings.searched is not None, "colorbar": {"title": {"text": what}},
        "hovertemplate": f"{names[0]} %{{x}}, {names[1]} %{{y}}: %{{z:.4g}}<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": names[0].replace("_", " ")}, "type": "category"},
        "yaxis": {"title": {"text": names[1].replace("_", " ")}, "type": "category"},
    }
    more = " Each cell is the best over the other axes." if len(findings.names) > 2 else ""
    return Figure(f"{what} by {names[0]} and {names[1]}".replace("_", " "), more.strip(), [data], layout)


def _category(value: object) -> str:
    return "default" if value is None else str(value)


def _hover(findings: Findings, row: Row) -> str:
    return findings.label(row) + money_text(row)


def _slo_limit(findings: Findings) -> float | None:
    return findings.slo.terms[0].limit_ms if findings.slo else None


def _limit_line(limit: float | None) -> list[dict[str, Any]]:
    if limit is None:
        return []
    line = {"color": "#b3261e", "dash": "dash", "width": 1.5}
    return [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": limit, "y1": limit, "line": line}]


def _latency_name(key: str) -> str:
    """``TTFT p99`` for ``p99_ttft_ms``."""
    statistic, metric, _ = key.rsplit("_", 2)
    return f"{'E2E' if metric == 'e2el' else metric.upper()} {statistic}"
