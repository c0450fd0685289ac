"""The report's charts as PNG files, for slides and papers; needs matplotlib."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from simserve.errors import ConfigError
from simserve.sweep.report.figures import Figure, figures_of
from simserve.sweep.report.findings import Findings


def write_pngs(findings: Findings, folder: Path) -> list[Path]:
    """A file for each chart; raises :class:`ConfigError` without matplotlib, or if they cannot be written."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ConfigError("plots as PNG need matplotlib: pip install 'simserve[plot]'") from None
    paths = []
    for figure in figures_of(findings):
        canvas, panel = plt.subplots(figsize=(8, 5), layout="tight")
        _draw(panel, figure)
        path = folder / (re.sub(r"\W+", "-", figure.title.lower()).strip("-") + ".png")
        try:
            canvas.savefig(path, dpi=150)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from None
        finally:
            plt.close(canvas)
        paths.append(path)
    return paths


def _draw(panel: Any, figure: Figure) -> None:
    for trace in figure.data:
        if trace["type"] == "heatmap":
            _draw_cells(panel, trace)
        elif trace.get("fill"):
            panel.fill(trace["x"], trace["y"], color=trace["fillcolor"], alpha=trace["opacity"], linewidth=0)
        elif trace["mode"] == "markers":
            panel.plot(trace["x"], trace["y"], "o", color=trace["marker"]["color"], label=trace["name"])
        else:
            style = "o-" if "markers" in trace["mode"] else ":"
            panel.plot(trace["x"], trace["y"], style, color=trace["line"]["color"], label=trace["name"], markersize=4)
    for shape in figure.layout.get("shapes", ()):
        panel.axhline(shape["y0"], color=shape["line"]["color"], linestyle="--", label="SLO")
    x, y = figure.layout["xaxis"], figure.layout["yaxis"]
    panel.set(title=figure.title, xlabel=x["title"]["text"], ylabel=y["title"]["text"])
    if y.get("type") == "log":
        panel.set_yscale("log")
    if panel.get_legend_handles_labels()[1]:
        panel.legend(fontsize="small")


def _draw_cells(panel: Any, trace: dict[str, Any]) -> None:
    cells = [[float("nan") if value is None else value for value in line] for line in trace["z"]]
    panel.imshow(cells, cmap="Blues_r" if trace["reversescale"] else "Blues", aspect="auto")
    panel.set_xticks(range(len(trace["x"])), trace["x"])
    panel.set_yticks(range(len(trace["y"])), trace["y"])
    for line, texts in enumerate(trace["text"]):
        for column, text in enumerate(texts):
            panel.text(column, line, text, ha="center", va="center", fontsize="small", color="#c2571a")
