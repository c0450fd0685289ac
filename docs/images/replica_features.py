"""The examples of docs/replica_features.md: runs each, prints its figures and draws its plot.

python docs/images/replica_features.py [NAME ...]
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.metrics.summary import Summary, summarize
from simserve.models import load_model
from simserve.simulation import Conversations, SimulationResult, Source, simulate
from simserve.workload import (
    AdapterChoice,
    LognormalLength,
    SteadyArrivals,
    Workload,
    draw_sessions,
    parse_length,
    parse_think_time,
    synthetic_workload,
)

matplotlib.use("svg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
MODEL, HARDWARE = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100")
DRAFTS = (
    '{"method": "draft_model", "model": "meta-llama/Llama-3.2-1B-Instruct", "num_speculative_tokens": 3, '
    '"acceptance": [0.8, 0.6, 0.4]}'
)


def served(workload: Workload | Source, **options: Any) -> tuple[SimulationResult, Summary]:
    """``workload`` on one engine."""
    done = simulate(workload, MODEL, HARDWARE, EngineOptions(**options))
    return done, summarize(done.records, done.totals)


def tiers() -> None:
    """Conversations come back after a minute: the larger the host's memory, the more of them it still knows."""
    sessions = draw_sessions(
        120, SteadyArrivals(0.25), parse_length("8", "turns"), parse_length("1000", "input", "input_tokens"),
        parse_length("200", "output", "output_tokens"), parse_think_time("60"), 1, unit_tokens=16,
    )  # fmt: skip
    sizes = [0, 16, 32, 64, 128]
    cached, ttft = [], []
    for size in sizes:
        options = {"kv_offloading_size": float(size)} if size else {}
        _, summary = served(Conversations(sessions), num_gpu_blocks=12000, **options)
        cached.append(100 * summary.prefix_cache_hit_rate)
        ttft.append(1000 * summary.ttft.mean)
        print(f"{size} GiB: {cached[-1]:.1f} % of prompt tokens cached, TTFT {ttft[-1]:.0f} ms on average")
    draw("tiers", "host memory for KV, GiB", sizes, {"cached, % of prompt tokens": cached, "TTFT mean, ms": ttft})


def drafts() -> None:
    """Drafts help while steps wait for memory, and hurt once they wait for arithmetic."""
    rates = [1, 2, 4, 8, 12, 16]
    tpot: dict[str, list[float]] = {"plain": [], "draft model": []}
    for rate in rates:
        workload = synthetic_workload(800, float(rate), LognormalLength(300, 0.5), LognormalLength(300, 0.5), seed=1)
        for label, options in (("plain", {}), ("draft model", {"speculative_config": DRAFTS})):
            _, summary = served(workload, **options)
            tpot[label].append(1000 * summary.tpot.mean)
        print(f"{rate} requests/s: TPOT {tpot['plain'][-1]:.1f} ms, with drafts {tpot['draft model'][-1]:.1f} ms")
    draw("drafts", "requests/s", rates, {f"TPOT mean, ms: {label}": values for label, values in tpot.items()}, one=True)


def adapters() -> None:
    """Requests wait for adapters that find no slot beside those in use: the more of them, the more slots it takes."""
    slots = [1, 2, 4, 8, 16, 32, 64]
    base = synthetic_workload(2000, 8.0, LognormalLength(400, 0.5), LognormalLength(150, 0.5), seed=1)
    _, plain = served(base)
    print(f"no adapters: TTFT {1000 * plain.ttft.mean:.0f} ms, {plain.output_throughput:.0f} tokens/s")
    ttft: dict[str, list[float]] = {}
    for count in (16, 64):
        asking = replace(base, adapters=AdapterChoice(count, zipf=1.0).draw(1, len(base)))
        for size in slots:
            options = {"enable_lora": True, "max_loras": size, "max_cpu_loras": max(size, count)}
            done, summary = served(asking, **options)
            ttft.setdefault(f"TTFT mean, s: {count} adapters", []).append(summary.ttft.mean)
            print(
                f"{count} adapters, {size} slots: TTFT {1000 * summary.ttft.mean:.0f} ms, TPOT "
                f"{1000 * summary.tpot.mean:.1f} ms, {summary.output_throughput:.0f} tokens/s, "
                f"{100 * done.figures['lora_hit_rate']:.0f} % find theirs there, {done.figures['lora_loads']} loads"
            )
    draw("adapters", "slots (--max-loras)", slots, ttft, one=True)


def draw(name: str, x: str, labels: list[int], lines: dict[str, list[float]], one: bool = False) -> None:
    """Each of ``lines`` over ``labels``, side by side or in ``one`` picture."""
    figure, axes = plt.subplots(1, 1 if one else len(lines), figsize=(8, 3), squeeze=False)
    for index, (label, values) in enumerate(lines.items()):
        axis = axes[0][0 if one else index]
        axis.plot(range(len(labels)), values, marker="o", label=label)
        axis.set_xticks(range(len(labels)), [str(each) for each in labels])
        axis.set_xlabel(x)
        axis.set_ylim(bottom=0)
        axis.legend()
    figure.tight_layout()
    figure.savefig(HERE / f"replica-{name}.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    matplotlib.rcParams["svg.hashsalt"] = "simserve"
    for example in sys.argv[1:] or ("tiers", "drafts", "adapters"):
        {"tiers": tiers, "drafts": drafts, "adapters": adapters}[example]()
