"""A timeline as a picture: queue, batch, KV and tokens/s of each replica, with failures and scalings marked."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simserve.errors import ConfigError
from simserve.simulation.watching.timeline import BATCH, KV, QUEUE, TOKENS, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".html")

MOST_LINES = 10
"""Replicas drawn one by one; of more, each group's mean is drawn, and around it the least and the most."""

ROWS = ((QUEUE, "waiting"), (BATCH, "running"), (KV, "KV blocks in use, %"), (TOKENS, "tokens/s computed"))


class Mark(NamedTuple):
    """Something that happened at ``time_s``: ``kind`` is failure, scale up or scale down."""

    time_s: float
    kind: str


COLORS = {"failure": "tab:red", "scale up": "tab:green", "scale down": "tab:olive"}


def check_timeline_path(path: Path) -> None:
    """Raise :class:`ConfigError`, before a long run, if a timeline cannot be drawn there."""
    if path.suffix not in ENDINGS:
        raise ConfigError(f"--timeline {path}: give a file that ends in {', '.join(ENDINGS)}")
    try:
        import matplotlib as _  # noqa: F401
    except ImportError:
        raise ConfigError("--timeline needs matplotlib; install it with: pip install 'simserve[plot]'") from None


def write_timeline(path: Path, timeline: Timeline, marks: Sequence[Mark], title: str) -> None:
    """Draw ``timeline`` into ``path``; raises :class:`ConfigError` as :func:`check_timeline_path`, or if it cannot."""
    check_timeline_path(path)
    figure = _draw(timeline, marks, title)
    try:
        if path.suffix == ".html":
            path.write_text(_page(figure, title), encoding="utf-8")
        else:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise ConfigError(f"cannot write the timeline {path}: {error.strerror}") from None


def _draw(timeline: Timeline, marks: Sequence[Mark], title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots(len(ROWS), 1, sharex=True)
    figure.suptitle(title, fontsize=10)
    for each, (row, label) in zip(axes, ROWS, strict=True):
        _lines(each, timeline, row)
        for mark in marks:
            each.axvline(mark.time_s, color=COLORS[mark.kind], linewidth=0.8, linestyle="--")
        each.set_ylabel(label)
        each.set_ylim(bottom=0)
        each.grid(alpha=0.3)
    for kind in dict.fromkeys(mark.kind for mark in marks):
        axes[0].plot([], [], color=COLORS[kind], linestyle="--", label=kind)
    axes[0].legend(fontsize=7, ncols=4, loc="upper right")
    axes[-1].set_xlabel(f"simulated seconds, means over {timeline.width_s:g} s")
    return figure


def _lines(axis: Axes, timeline: Timeline, row: int) -> None:
    scale = 100.0 if row == KV else 1.0
    indexes = sorted(timeline.series)
    if len(indexes) <= MOST_LINES:
        for index in indexes:
            axis.plot(
                timeline.times_s, scale * timeline.mean(index, row), linewidth=1, label=timeline.series[index].name
            )
        return
    groups: dict[str, list[int]] = {}
    for index in indexes:
        groups.setdefault(timeline.series[index].name.rpartition("/")[0], []).append(index)
    for name, members in groups.items():
        values = scale * np.array([timeline.mean(index, row) for index in members])
        label = f"{name}: mean of {len(members)}, least and most"
        (line,) = axis.plot(timeline.times_s, values.mean(axis=0), linewidth=1, label=label)
        axis.fill_between(
            timeline.times_s, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.2, linewidth=0
        )


def _page(figure: Figure, title: str) -> str:
    """One file that needs no other: the picture, and a heading."""
    picture = io.StringIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    svg = picture.getvalue()
    svg = svg[svg.index("<svg") :]
    heading = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{heading}</title>\n'
        f"<style>body{{margin:1em;font-family:sans-serif}}svg{{max-width:100%;height:auto}}</style>\n{svg}</html>\n"
    )
