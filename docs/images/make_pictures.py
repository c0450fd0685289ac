"""Draws the pictures of the documentation from simulations run here and now.

Run ``pip install -e '.[plot]'`` and then ``python docs/images/make_pictures.py``. What was simulated is kept beside the
picture as CSV, and a test holds the CSV equal to what the simulation says today.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.metrics.summary import summarize
from simserve.models import load_model
from simserve.simulation import simulate, simulate_edges
from simserve.workload import synthetic_workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = Path(__file__).parent
LOAD_CSV, LOAD_SVG = FOLDER / "ttft_against_load.csv", FOLDER / "ttft_against_load.svg"

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
ACCELERATORS = {"L4": "#b5651d", "A100": "#2f6db3", "H100": "#3a8f4d", "MI300X": "#8a3fa0"}
REQUESTS_PER_S = [2 ** (step / 2) for step in range(-4, 15)]
NUM_PROMPTS, INPUT_TOKENS, OUTPUT_TOKENS = 2000, 1024, 128
TARGET_MS = 1000.0


class Point(NamedTuple):
    """99th percentile of TTFT at one load, in milliseconds, and its band."""

    hardware: str
    requests_per_s: float
    ttft_ms: float
    low_ms: float
    high_ms: float


def ttft_p99(hardware: str, requests_per_s: float) -> Point:
    """What one replica of MODEL does under a Poisson load."""
    workload = synthetic_workload(
        num_prompts=NUM_PROMPTS, request_rate=requests_per_s, input_len=INPUT_TOKENS, output_len=OUTPUT_TOKENS, seed=0
    )
    run = workload, load_model(MODEL), load_hardware(hardware), EngineOptions()
    done = [simulate(*run), *simulate_edges(*run)]
    ttfts_ms = [1000 * summarize(each.records, each.totals, (99.0,)).ttft.at[0] for each in done]
    return Point(hardware, requests_per_s, ttfts_ms[0], min(ttfts_ms), max(ttfts_ms))


def simulate_load() -> list[Point]:
    """Every point of the picture."""
    return [ttft_p99(name, rate) for name in ACCELERATORS for rate in REQUESTS_PER_S]


def write_load(points: list[Point]) -> None:
    """Keep the points beside the picture."""
    with LOAD_CSV.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["hardware", "requests_per_s", "p99_ttft_ms", "low_ms", "high_ms"])
        writer.writerows(
            (point.hardware, f"{point.requests_per_s:.4f}", *(f"{figure:.2f}" for figure in point[2:]))
            for point in points
        )


def draw_load(points: list[Point]) -> None:
    """p99 TTFT against load, one line in its band per accelerator, up to where it has long left the target behind."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "simserve", "font.family": "sans-serif"})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    for name, color in ACCELERATORS.items():
        own = [point for point in points if point.hardware == name]
        rates, ttfts_ms = [point.requests_per_s for point in own], [point.ttft_ms for point in own]
        low_ms, high_ms = [point.low_ms for point in own], [point.high_ms for point in own]
        axes.fill_between(rates, low_ms, high_ms, color=color, alpha=0.15, linewidth=0)
        axes.plot(rates, ttfts_ms, "o-", color=color, markersize=3.5, linewidth=1.8)
        _label(axes, name, color, rates, ttfts_ms)
    axes.axhline(TARGET_MS, color="#666666", linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        "a target of 1 s", (REQUESTS_PER_S[0], TARGET_MS), (0, 4), textcoords="offset points", color="#666666"
    )
    _dress(axes)
    figure.savefig(LOAD_SVG, metadata={"Date": None}, facecolor="white")


def _label(axes: Axes, name: str, color: str, rates: list[float], ttfts_ms: list[float]) -> None:
    """The name where the line crosses the target, and the load at which it does."""
    above = next(index for index, ttft_ms in enumerate(ttfts_ms) if ttft_ms > TARGET_MS)
    low_ms, high_ms = ttfts_ms[above - 1 : above + 1]
    share = math.log(TARGET_MS / low_ms) / math.log(high_ms / low_ms)
    crossing = rates[above - 1] * (rates[above] / rates[above - 1]) ** share
    last = name == list(ACCELERATORS)[-1]  # its label stands to the right, away from the line before it
    axes.annotate(
        f"{name}\n{crossing:.2g}/s", (crossing, TARGET_MS), (14, -32) if last else (-7, 14), textcoords="offset points",
        color=color, weight="bold", ha="left" if last else "right",
    )  # fmt: skip


def _dress(axes: Axes) -> None:
    axes.set(xscale="log", yscale="log", ylim=(15, 20_000), xlim=(REQUESTS_PER_S[0] * 0.93, REQUESTS_PER_S[-1] * 1.05))
    axes.set_xticks([0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128], ["¼", "½", "1", "2", "4", "8", "16", "32", "64", "128"])
    axes.set_xticks([], minor=True)
    ticks_ms = [20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]
    axes.set_yticks(ticks_ms, [f"{tick} ms" if tick < 1000 else f"{tick // 1000} s" for tick in ticks_ms])
    axes.set_yticks([], minor=True)
    axes.set_xlabel(f"requests per second ({INPUT_TOKENS:,} tokens in, {OUTPUT_TOKENS} out, Poisson arrivals)")
    axes.set_ylabel("99th percentile of TTFT")
    axes.set_title(f"Llama-3.1-8B on one device: where load breaks it, and its band{_trust()}", fontsize=11, loc="left")
    axes.grid(True, color="#e4e4e4", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _trust() -> str:
    """What the title says of devices that were never measured."""
    uncalibrated = [name for name in ACCELERATORS if not load_hardware(name).calibrated]
    return f" ({' and '.join(uncalibrated)}: uncalibrated)" if uncalibrated else ""


if __name__ == "__main__":
    points = simulate_load()
    write_load(points)
    draw_load(points)
