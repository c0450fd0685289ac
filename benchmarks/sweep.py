"""How fast sweeps are: a grid of 1,000 runs, what a run costs beside its simulation, and two processes against one.

    python benchmarks/sweep.py [--runs 1000] [--knees]

With ``--knees`` also: the search for the highest load against a fine grid, on five cases, and the time of a plan.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from simserve.cli.options import engine_options, model_and_hardware
from simserve.cli.settings import parsed, simulate_settings
from simserve.cli.workload import offered_requests
from simserve.simulation import simulate
from simserve.sweep.executors import InThisProcess, LocalProcesses
from simserve.sweep.expand import Job, jobs_of
from simserve.sweep.run import run_sweep
from simserve.sweep.spec import spec_from
from simserve.sweep.store import Store

BASE: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1-8B-Instruct", "synthetic": True, "num_prompts": 500, "input_len": 500,
    "output_len": 100,
}  # fmt: skip
HARDWARE = ["A100", "RTX4090", "L40S", "H100-SXM"]

CASES = (
    ("A100", "ttft:p99=1s tpot:p90=50ms"), ("RTX4090", "ttft:p99=500ms"), ("L40S", "tpot:p99=60ms"),
    ("H100-SXM", "ttft:p90=300ms e2e:p99=5s"), ("L4", "ttft:p99=2s"),
)  # fmt: skip
TOLERANCE = 0.02


def grid(runs: int) -> list[Job]:
    rates = {"from": 1, "to": 20, "count": max(1, runs // (len(HARDWARE) * 5))}
    axes = {"hardware": HARDWARE, "max_num_seqs": [32, 64, 128, 256, 512], "request_rate": rates}
    return jobs_of(spec_from({"base": BASE, "axes": axes}, "benchmark"))


def timed(jobs: list[Job], executor: Any) -> float:
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder)) as store:
        start_s = time.perf_counter()
        run_sweep(jobs, simulate_settings, executor, store, lambda *_: None)
        return time.perf_counter() - start_s


def simulation_s(jobs: list[Job]) -> float:
    """Only the simulations of ``jobs``, everything around them done before."""
    total_s = 0.0
    for job in jobs:
        args = parsed(job.settings)
        options = engine_options(args)
        model, hardware = model_and_hardware(args)
        source = offered_requests(args, options.block_size).source
        start_s = time.perf_counter()
        simulate(source, model, hardware, options)
        total_s += time.perf_counter() - start_s
    return total_s


def knees() -> None:
    for hardware, slo in CASES:
        base = {**BASE, "hardware": hardware}
        (search,) = jobs_of(spec_from({"base": base, "slo": slo, "capacity": {"tolerance": TOLERANCE}}, "search"))
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder)) as store:
            (found,) = run_sweep([search], simulate_settings, InThisProcess(), store, lambda *_: None).outcomes
        knee = float(found.search["load"])
        step = knee * TOLERANCE / 2
        rates = {"from": step, "to": 2 * knee, "step": step}
        jobs = jobs_of(spec_from({"base": base, "slo": slo, "axes": {"request_rate": rates}}, "grid"))
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder)) as store:
            rows = run_sweep(jobs, simulate_settings, LocalProcesses(), store, lambda *_: None).outcomes
        limits = search.slo
        assert limits is not None
        missed = [float(str(one.settings["request_rate"])) for one in rows if one.result and not limits.met(one.result)]
        fine = min(missed) - step
        probes = len(found.search["probes"]) + 1
        print(
            f"{hardware:9} {slo:28} search {knee:8.3f} in {probes:2} runs; grid {fine:8.3f} in {len(jobs)} runs;"
            f" apart {abs(knee - fine) / fine:.1%}, runs {probes / len(jobs):.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--knees", action="store_true")
    args = parser.parse_args()
    jobs = grid(args.runs)
    timed(jobs[:20], InThisProcess())
    two_s, one_s = timed(jobs, LocalProcesses(2)), timed(jobs, LocalProcesses(1))
    alone_s = simulation_s(jobs)
    print(f"{len(jobs)} runs of {BASE['num_prompts']} requests: {two_s:.1f} s with 2 jobs, {one_s:.1f} s with 1")
    print(f"2 jobs are {one_s / two_s:.2f} times as fast as 1")
    more_s, each_s = (one_s - alone_s) / len(jobs), alone_s / len(jobs)
    print(f"a run costs {more_s * 1e3:.1f} ms beside its simulation of {each_s * 1e3:.1f} ms")
    if args.knees:
        knees()


if __name__ == "__main__":
    main()
