"""The examples of docs/clusters.md: runs each, prints its figures and draws its plot.

    python docs/images/clusters.py [NAME ...]

Every figure in the page comes from here. The Mooncake trace is read from ../shared/traces; without it that one is left
out, saying so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.metrics.latency import ttft_s
from simserve.metrics.summary import Summary, summarize
from simserve.models import load_model
from simserve.simulation.cluster import ClusterResult, Defaults, cluster_of, simulate_cluster
from simserve.workload import BurstArrivals, LognormalLength, SteadyArrivals, Workload, read_trace, synthetic_workload

matplotlib.use("svg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
TRACE = HERE.parents[1].parent / "shared" / "traces" / "mooncake_conversation_trace.jsonl"
MODEL, HARDWARE = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100")
WORK = (LognormalLength(1000, 1.0), LognormalLength(150, 0.8))


def served(workload: Workload, engine: EngineOptions | None = None, **fields: Any) -> tuple[ClusterResult, Summary]:
    """``workload`` on the cluster of ``fields``."""
    spec = cluster_of({"groups": [{"name": "all"}], **fields}, "example")
    done = simulate_cluster(workload, spec, Defaults(MODEL, HARDWARE, engine or EngineOptions()))
    return done, summarize(done.records, done.totals)


def chunked_prefill() -> None:
    """A long prompt in one step holds up every answer; in chunks, it waits for them instead."""
    workload = synthetic_workload(800, 2.0, LognormalLength(4000, 0.5), LognormalLength(200, 0.5), seed=1)
    labels = [256, 512, 2048, 8192, 32768]
    figures = []
    for budget in labels:
        _, summary = served(workload, EngineOptions(max_num_batched_tokens=budget))
        figures.append((summary.ttft.at[0], summary.itl.at[2]))
        print(f"chunks of {budget}: TTFT p50 {figures[-1][0] * 1e3:.0f} ms, ITL p99 {figures[-1][1] * 1e3:.0f} ms")
    ttft, itl = np.array(figures).T * 1e3
    draw_two("chunked-prefill", "most tokens in a step", labels, ("TTFT p50, ms", ttft), ("ITL p99, ms", itl))


def disaggregation() -> None:
    """Prefill apart from decode: ITL is flat, TTFT pays, and the link carries so many prompts and no more."""
    rates = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    kv_gb = 2000 * MODEL.kv_bytes_per_token("bfloat16") / 1e9
    link = 1.5
    print(f"KV of a prompt {kv_gb:.3f} GB: a link of {link} GB/s carries {link / kv_gb:.2f} requests/s")
    apart = [{"name": "p", "role": "prefill"}, {"name": "d", "role": "decode"}]
    shapes: dict[str, dict[str, Any]] = {
        "2 mixed": {"groups": [{"name": "all", "replicas": 2}]},
        "1 prefill + 1 decode, 100 GB/s": {"groups": apart, "links": [links(100.0)]},
        f"1 prefill + 1 decode, {link} GB/s": {"groups": apart, "links": [links(link)]},
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 3))
    for name, shape in shapes.items():
        rows = []
        for rate in rates:
            workload = synthetic_workload(600, float(rate), 2000, 100, seed=2)
            _, summary = served(workload, **shape)
            rows.append((summary.ttft.at[0] * 1e3, summary.itl.at[1] * 1e3, summary.e2e.mean))
        print(
            name,
            " ".join(f"{rate}/s: {a:.0f}/{b:.0f} ms/{c:.1f} s" for rate, (a, b, c) in zip(rates, rows, strict=True)),
        )
        for axis, values in zip(axes, np.array(rows).T, strict=True):
            axis.plot(rates, values, marker="o", label=name)
    for axis, label in zip(axes, ("TTFT p50, ms", "ITL p90, ms", "E2E mean, s"), strict=True):
        axis.set(xlabel="requests/s", ylabel=label, yscale="log")
    axes[2].axvline(link / kv_gb, color="grey", linestyle=":")
    axes[0].legend(fontsize=7)
    save(figure, "disaggregation")


def links(bandwidth: float) -> dict[str, Any]:
    return {"from": "p", "to": "d", "bandwidth_gb_per_s": bandwidth}


def prefix_aware() -> None:
    """The Mooncake conversation trace, its first 20 minutes, on 8 replicas."""
    if not TRACE.exists():
        print(f"{TRACE.name} is not at {TRACE.parent}: left out")
        return
    trace = read_trace(str(TRACE))
    workload = trace.take(np.flatnonzero(trace.arrival_s < 1200.0))
    print(f"{len(workload):,} requests of {int(workload.input_tokens.mean()):,} tokens")
    names, cached, p50 = [], [], []
    for name in ("round-robin", "random", "least-requests", "least-tokens", "prefix-aware"):
        _, summary = served(
            workload, groups=[{"name": "all", "replicas": 8, "hardware": "H100"}], router={"policy": name}
        )
        names.append(name)
        cached.append(summary.prefix_cache_hit_rate * 100)
        p50.append(summary.ttft.mean * 1e3)
        print(
            f"{name}: cached {cached[-1]:.1f} %, TTFT mean {summary.ttft.mean * 1e3:.0f} "
            f"p50 {summary.ttft.at[0] * 1e3:.0f} p90 {summary.ttft.at[1] * 1e3:.0f} ms"
        )
    figure, axes = plt.subplots(1, 2, figsize=(9, 3))
    for axis, values, label in zip(axes, (cached, p50), ("prompt tokens cached, %", "TTFT mean, ms"), strict=True):
        axis.barh(names, values)
        axis.set(xlabel=label)
    save(figure, "prefix-aware")


def power_of_two() -> None:
    """Random against two choices, and against all of them, fresh and stale."""
    workload = synthetic_workload(12000, 16 * 8.0, LognormalLength(600, 1.0), LognormalLength(200, 1.0), seed=4)
    figure, axis = plt.subplots(figsize=(6, 3.4))
    for name, staleness_s in (
        ("random", 0.0), ("power-of-two", 0.0), ("power-of-two", 2.0), ("least-requests", 0.0), ("least-requests", 2.0),
    ):  # fmt: skip
        router = {"policy": name, "staleness_s": staleness_s}
        done, summary = served(workload, groups=[{"name": "all", "replicas": 16}], router=router)
        label = f"{name}, loads {staleness_s:g} s old" if staleness_s else name
        print(f"{label}: TTFT mean {summary.ttft.mean * 1e3:.0f}, p99 {summary.ttft.at[2] * 1e3:.0f} ms")
        values = np.sort(ttft_s(done.records)) * 1e3
        axis.plot(values, 1 - np.arange(len(values)) / len(values), label=label)
    axis.set(xlabel="TTFT, ms", ylabel="share of requests that wait longer", xscale="log", yscale="log", ylim=(1e-3, 1))
    axis.legend(fontsize=7)
    save(figure, "power-of-two")


def dead_replica() -> None:
    """One of four dies at 60 s and is back at 120 s."""
    workload = synthetic_workload(4500, SteadyArrivals(25.0, 1.0), *WORK, seed=5)
    failure = {"group": "all", "replica": 0, "at_s": 60.0, "down_s": 60.0}
    done, summary = served(
        workload, groups=[{"name": "all", "replicas": 4}], router={"policy": "least-requests"}, failures=[failure]
    )
    print(f"retries {int(done.places.retries.sum())}, again {done.members[0].wasted_prefill_tokens:,} prompt tokens "
          f"and {done.moved_tokens:,} of answers; TTFT p99 {summary.ttft.at[2]:.2f} s")  # fmt: skip
    over_time("dead-replica", done, "one of four replicas is down from 60 to 120 s")


def autoscaling() -> None:
    """A burst of eight times the usual rate, and replicas that need a minute to come."""
    workload = synthetic_workload(6000, BurstArrivals(40.0, 120.0, 180.0, 5.0, 1.0), *WORK, seed=6)
    scaler = {
        "group": "all", "max_replicas": 8, "target": 30.0, "interval_s": 15.0, "startup_s": 30.0,
        "scale_down_delay_s": 60.0, "load_bandwidth_gb_per_s": 2.0,
    }  # fmt: skip
    done, summary = served(workload, autoscalers=[scaler], router={"policy": "least-requests"})
    fixed, all_the_time = served(workload, groups=[{"name": "all", "replicas": 8}], router={"policy": "least-requests"})
    for name, run, figures in (("autoscaled", done, summary), ("8 replicas", fixed, all_the_time)):
        hours = sum(member.alive_s for member in run.members) / 3600
        print(f"{name}: TTFT p50 {figures.ttft.at[0]:.2f} p99 {figures.ttft.at[2]:.2f} s, {hours:.2f} replica hours")
    over_time("autoscaling", done, "a burst meets an autoscaler")


def parallelism() -> None:
    """Eight A100 for a model of 70B, as stages or side by side; and four H100 for a mixture of experts."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2))
    large: dict[str, dict[str, int]] = {
        f"TP {8 // stages} x PP {stages}": {"tensor_parallel_size": 8 // stages, "pipeline_parallel_size": stages}
        for stages in (1, 2, 4)
    }
    experts: dict[str, dict[str, Any]] = {
        "TP 4, experts in parts": {"tensor_parallel_size": 4},
        "TP 4, whole experts": {"tensor_parallel_size": 4, "enable_expert_parallel": True},
        "DP 4, experts in parts": {"data_parallel_size": 4},
        "DP 4, whole experts": {"data_parallel_size": 4, "enable_expert_parallel": True},
    }
    rates = [1, 2, 4, 8, 12]
    for name, shape in large.items():
        group = {"name": "all", "model": "Llama-3.1-70B-Instruct", **shape}
        rows = [_rates(rate, 250, [group]) for rate in rates]
        print(
            name,
            " ".join(f"{rate}/s: {ttft:.0f}/{tpot:.1f} ms" for rate, (ttft, tpot) in zip(rates, rows, strict=True)),
        )
        for axis, values in zip(axes, np.array(rows).T, strict=False):
            axis.plot(rates, values, marker="o", label=name)
    rates = [2, 8, 32, 64]
    for name, options in experts.items():
        group = {"name": "all", "model": "Qwen3-30B-A3B", "hardware": "H100", **options}
        rows = [_rates(rate, 400, [group]) for rate in rates]
        print(
            name,
            " ".join(f"{rate}/s: {ttft:.0f}/{tpot:.1f} ms" for rate, (ttft, tpot) in zip(rates, rows, strict=True)),
        )
        axes[2].plot(rates, [tpot for _, tpot in rows], marker="o", label=name)
    for axis, label in zip(axes, ("TTFT p50, ms (70B)", "TPOT p50, ms (70B)", "TPOT p50, ms (30B-A3B)"), strict=True):
        axis.set(xlabel="requests/s", ylabel=label)
        axis.legend(fontsize=7)
    axes[0].set_yscale("log")
    save(figure, "parallelism")


def _rates(rate: float, requests: int, groups: list[dict[str, Any]]) -> tuple[float, float]:
    """Medians of TTFT and TPOT in ms."""
    workload = synthetic_workload(requests, float(rate), *WORK, seed=7)
    _, summary = served(workload, groups=groups, router={"policy": "least-requests"})
    return summary.ttft.at[0] * 1e3, summary.tpot.at[0] * 1e3


def over_time(name: str, done: ClusterResult, title: str) -> None:
    """TTFT of each request over its arrival; replicas below, where they were scaled."""
    figure, axis = plt.subplots(figsize=(8, 3.2))
    axis.scatter(done.records.arrival_s, ttft_s(done.records), s=3, rasterized=True)
    axis.set(xlabel="arrival, s", ylabel="TTFT, s", yscale="log", title=title)
    if done.decisions:
        twin = axis.twinx()
        times = [decision.time_s for decision in done.decisions]
        twin.step(times, [decision.replicas for decision in done.decisions], color="tab:orange", where="post")
        twin.set_ylabel("replicas, those that start included", color="tab:orange")
    save(figure, name)


def draw_two(name: str, xlabel: str, x: list[int], one: tuple[str, Any], other: tuple[str, Any]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3))
    for axis, (label, values) in zip(axes, (one, other), strict=True):
        axis.plot(x, values, marker="o")
        axis.set(xlabel=xlabel, ylabel=label, xscale="log")
    save(figure, name)


def save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(HERE / f"cluster-{name}.svg", metadata={"Date": None})
    plt.close(figure)


EXAMPLES: dict[str, Callable[[], None]] = {
    "chunked-prefill": chunked_prefill,
    "disaggregation": disaggregation,
    "prefix-aware": prefix_aware,
    "power-of-two": power_of_two,
    "dead-replica": dead_replica,
    "autoscaling": autoscaling,
    "parallelism": parallelism,
}

if __name__ == "__main__":
    matplotlib.rcParams["svg.hashsalt"] = "simserve"
    for chosen in sys.argv[1:] or EXAMPLES:
        print(f"\n{chosen}: {EXAMPLES[chosen].__doc__}")
        EXAMPLES[chosen]()
