"""What the simulation core costs, beside a bare SimPy event loop measured in the same run.

    python benchmarks/core.py [--json FILE] [--repeats 5] [--quick]

Figures are medians of the repeats, in microseconds and as multiples of one bare SimPy timeout event, on one core. The
two traces are read from ../shared/traces and left out, saying so, where that folder is absent.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from simserve.config import EngineOptions
from simserve.hardware import HardwareProfile, load_hardware
from simserve.latency import StepTimer
from simserve.models import load_model
from simserve.scheduling import Request
from simserve.simulation import Recorder, Replica, prepare, simulate
from simserve.workload import Workload, read_trace, synthetic_workload

MODEL, HARDWARE = "meta-llama/Llama-3.1-8B-Instruct", "A100"
BATCHES = (1, 32, 256, 1024)
TRACES = Path(__file__).resolve().parents[1].parent / "shared" / "traces"
SECONDS_PER_YEAR = 365 * 24 * 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes: to see that it runs")
    args = parser.parse_args()
    shrink = 10 if args.quick else 1
    event_us = median_of(args.repeats, lambda: bare_event_us(200_000 // shrink))
    figures: dict[str, Any] = {"simpy_event_us": event_us}
    show("bare SimPy timeout event", event_us, event_us)
    figures |= steps(event_us, args.repeats, shrink)
    figures |= requests(event_us, args.repeats, shrink)
    figures |= latency_model(args.repeats, shrink)
    figures |= long_runs(event_us, shrink)
    figures |= traces(args.repeats)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


def bare_event_us(events: int) -> float:
    """One process that does nothing but wait."""
    env = simpy.Environment()

    def tick() -> simpy.events.ProcessGenerator:
        for _ in range(events):
            yield env.timeout(1.0)

    env.process(tick())
    return timed_s(env.run) / events * 1e6


def steps(event_us: float, repeats: int, shrink: int) -> dict[str, Any]:
    """A decode step by batch size: every step an event of its own, and as many to an event as the core likes."""
    figures: dict[str, Any] = {}
    for name, alone in (("step_alone", True), ("step", False)):
        for batch in BATCHES:
            cost = median_of(repeats, lambda batch=batch, alone=alone: decode_step_us(batch, alone, 4000 // shrink))
            figures[f"{name}_us_batch_{batch}"] = cost
            show(f"decode step, batch {batch}{', an event each' if alone else ''}", cost, event_us)
        ratio = figures[f"{name}_us_batch_1024"] / figures[f"{name}_us_batch_1"]
        figures[f"{name}_1024_over_1"] = ratio
        print(f"{'  batch 1024 over batch 1':<58} {ratio:10.2f} x")
    return figures


def decode_step_us(
    batch: int, alone: bool, count: int, timed_by: Callable[[StepTimer], Any] = lambda timer: timer
) -> float:
    """Time ``count`` decode steps of ``batch`` requests, records and gaps included, after all prompts are in."""
    options = EngineOptions(max_num_seqs=1024, num_gpu_blocks=1 << 20, max_num_batched_tokens=8192)
    setup = prepare(load_model(MODEL), load_hardware(HARDWARE), options)
    env = simpy.Environment()
    scheduler = setup.new_scheduler()
    timer = timed_by(setup.timer)
    replica = Replica(env, scheduler, timer, Recorder(scheduler, timer), async_scheduling=True)
    if alone:
        replica.most_repeats = 1
    for index in range(batch):
        replica.submit(Request(index, 32, 20_000 + index))
    while scheduler.steps < 100:
        env.step()
    first = scheduler.steps

    def run() -> None:
        while scheduler.steps < first + count:
            env.step()

    return timed_s(run) / (scheduler.steps - first) * 1e6


def requests(event_us: float, repeats: int, shrink: int) -> dict[str, Any]:
    """A request of 512 in and 256 out at 80 % of what the engine can take, all in: arrival to record.

    The run that finds the rate compiles the step times, as the first of a process does; the others share them.
    """
    count = 10_000 // shrink
    at_once = run(synthetic_workload(2000, float("inf"), 512, 256, seed=0)).totals
    rate = 0.8 * 2000 / at_once.duration_s
    cost = median_of(repeats, lambda: request_us(count, rate))
    show(f"request 512/256 at 80 % load ({rate:.1f}/s)", cost, event_us)
    return {"request_us": cost, "request_events": cost / event_us, "request_rate": rate}


def request_us(count: int, rate: float, hardware: HardwareProfile | None = None) -> float:
    workload = synthetic_workload(count, rate, 512, 256, seed=1)
    return timed_s(lambda: run(workload, hardware)) / count * 1e6


class ConstantTimer:
    """Every step takes as long: what is left of the core's cost without a latency model."""

    def __init__(self, timer: StepTimer) -> None:
        self.total_work = timer.total_work

    def step_s(self, *_: object) -> float:
        return 0.02

    def decode_steps_s(self, decodes: int, decode_context_tokens: int, steps: int) -> np.ndarray[Any, Any]:
        return np.full(steps, 0.02)


def latency_model(repeats: int, shrink: int) -> dict[str, Any]:
    """What calibrated step times cost: a request on the data sheet alone, and steps that are all the same."""
    hardware, count, rate = load_hardware(HARDWARE), 10_000 // shrink, 10.0
    plain = hardware.model_copy(update={"calibration": None})
    costs: dict[str, list[float]] = {}
    for _ in range(repeats):  # in turns, so that a machine that slows down slows all alike
        costs.setdefault("request_calibrated_us", []).append(request_us(count, rate, hardware))
        costs.setdefault("request_data_sheet_us", []).append(request_us(count, rate, plain))
        costs.setdefault("steps_calibrated_us", []).append(decode_step_us(256, True, 4000 // shrink))
        costs.setdefault("steps_constant_us", []).append(decode_step_us(256, True, 4000 // shrink, ConstantTimer))
    figures: dict[str, Any] = {name: statistics.median(each) for name, each in costs.items()}
    for what, one, other in (
        ("request, calibrated over data sheet", "request_calibrated_us", "request_data_sheet_us"),
        ("decode step, calibrated over constant", "steps_calibrated_us", "steps_constant_us"),
    ):
        ratio = statistics.median(a / b for a, b in zip(costs[one], costs[other], strict=True))
        figures[f"{one.removesuffix('_us')}_over_{other.split('_', 1)[1].removesuffix('_us')}"] = ratio
        print(f"{what:<58} {figures[one]:10.2f} us = {ratio:6.2f} x")
    return figures


def long_runs(event_us: float, shrink: int) -> dict[str, Any]:
    """Cost per request from ten thousand to a million requests, peak memory after the last, and an idle year."""
    figures: dict[str, Any] = {}
    rate = 10.0
    for count in (10_000, 100_000, 1_000_000 // shrink):
        cost = request_us(count, rate)
        figures[f"request_us_of_{count}"] = cost
        show(f"request, one of {count:,}", cost, event_us)
    figures["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{'  peak memory so far':<58} {figures['peak_memory_mb']:10.0f} MB")
    hours = SECONDS_PER_YEAR // 3600
    sizes = np.full(hours, 200, dtype=np.int64)
    year = Workload("a request an hour", np.arange(hours) * 3600.0, sizes, sizes)
    figures["idle_year_s"] = timed_s(lambda: run(year))
    print(f"{'a year of one request an hour':<58} {figures['idle_year_s']:10.2f} s")
    return figures


def traces(repeats: int) -> dict[str, Any]:
    """Whole traces at their own speed on one replica, reading them left out."""
    figures: dict[str, Any] = {}
    for key, name in (("azure", "AzureLLMInferenceTrace_conv.csv"), ("mooncake", "mooncake_conversation_trace.jsonl")):
        path = TRACES / name
        if not path.exists():
            print(f"{name} is not at {TRACES}: left out")
            continue
        workload = read_trace(str(path))
        seconds = median_of(repeats, lambda workload=workload: timed_s(lambda: run(workload)))
        figures[f"{key}_s"] = seconds
        print(f"{f'{name}, {len(workload):,} requests':<58} {seconds:10.2f} s")
    return figures


def run(workload: Workload, hardware: HardwareProfile | None = None) -> Any:
    return simulate(workload, load_model(MODEL), hardware or load_hardware(HARDWARE), EngineOptions())


def timed_s(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median_of(repeats: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(repeats))


def show(what: str, cost_us: float, event_us: float) -> None:
    print(f"{what:<58} {cost_us:10.2f} us = {cost_us / event_us:6.2f} events")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
