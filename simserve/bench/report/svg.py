"""Small charts as SVG text: lines over axes, and bars of a timeline. Colours are CSS classes of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 40
TICKS = 5


@dataclass(frozen=True)
class Line:
    """Points to be joined; ``style`` is a CSS class, ``name`` stands in the legend ("" for none)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str


def chart(lines: Sequence[Line], x_label: str, y_label: str, *, y_max: float | None = None) -> str:
    """Lines over axes that begin at 0."""
    points = [(x, y) for line in lines for x, y in zip(line.x, line.y, strict=True) if math.isfinite(x + y)]
    x_top = _round_up(max((x for x, _ in points), default=1.0))
    y_top = y_max or _round_up(max((y for _, y in points), default=1.0))
    parts = [_frame(x_top, y_top, x_label, y_label)]
    for number, line in enumerate(lines):
        parts.append(f'<path class="line {line.style}" d="{_path(line, x_top, y_top)}"/>')
        if line.name:
            y = TOP + 14 + 16 * number
            parts.append(
                f'<text class="legend {line.style}" x="{WIDTH - RIGHT - 6}" y="{y}">{escape(line.name)}</text>'
            )
    return _svg(WIDTH, HEIGHT, "".join(parts))


@dataclass(frozen=True)
class Bars:
    """Horizontal bars of one kind: ``rows[i]`` from ``starts[i]`` to ``ends[i]``."""

    rows: Sequence[int]
    starts: Sequence[float]
    ends: Sequence[float]
    style: str


def timeline(kinds: Sequence[Bars], rows: int, x_label: str) -> str:
    """Bars over a common time axis, the first row on top."""
    width, row_height = 1160, max(1.0, min(8.0, 900 / max(rows, 1)))
    height = TOP + BOTTOM + row_height * rows
    x_top = _round_up(max((end for kind in kinds for end in kind.ends), default=1.0))
    scale = (width - LEFT - RIGHT) / x_top
    parts = []
    for tick in _ticks(x_top):
        x = LEFT + tick * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{height - BOTTOM:.1f}"/>')
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{height - BOTTOM + 16:.1f}">{_number(tick)}</text>')
    for kind in kinds:
        moves = [
            f"M{LEFT + start * scale:.1f} {TOP + (row + 0.5) * row_height:.1f}h{max((end - start) * scale, 0.5):.1f}"
            for row, start, end in zip(kind.rows, kind.starts, kind.ends, strict=True)
        ]
        parts.append(f'<path class="bar {kind.style}" stroke-width="{row_height * 0.8:.2f}" d="{"".join(moves)}"/>')
    parts.append(f'<text class="tick mid" x="{width / 2}" y="{height - 6:.1f}">{escape(x_label)}</text>')
    return _svg(width, math.ceil(height), "".join(parts))


def _svg(width: float, height: float, content: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img">{content}</svg>'


def _frame(x_top: float, y_top: float, x_label: str, y_label: str) -> str:
    parts = []
    for tick in _ticks(x_top):
        x = _x(tick, x_top)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}">{_number(tick)}</text>')
    for tick in _ticks(y_top):
        y = _y(tick, y_top)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{y + 4:.1f}">{_number(tick)}</text>')
    parts.append(f'<text class="tick mid" x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}">{escape(x_label)}</text>')
    parts.append(
        f'<text class="tick mid" transform="translate(13 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">'
        f"{escape(y_label)}</text>"
    )
    return "".join(parts)


def _path(line: Line, x_top: float, y_top: float) -> str:
    moves = []
    pen_up = True
    for x, y in zip(line.x, line.y, strict=True):
        if not math.isfinite(x + y):
            pen_up = True
            continue
        moves.append(f"{'M' if pen_up else 'L'}{_x(x, x_top):.1f} {_y(min(y, y_top), y_top):.1f}")
        pen_up = False
    return "".join(moves)


def _x(value: float, top: float) -> float:
    return LEFT + value / top * (WIDTH - LEFT - RIGHT)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)


def _ticks(top: float) -> list[float]:
    return [top * step / TICKS for step in range(TICKS + 1)]


def _round_up(value: float) -> float:
    """The next value that five ticks divide nicely."""
    if not value > 0 or not math.isfinite(value):
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next((unit * step for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7.5, 10) if unit * step >= value), unit * 10)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
