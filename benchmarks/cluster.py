"""What a cluster costs: a million requests on a thousand replicas, and the cost of a request there and on one.

    python benchmarks/cluster.py [--replicas 1000] [--requests 1000000] [--router power-of-two]

Seconds are of this process's CPU time. Each replica gets the same load, and the single one as many requests as each of
the many, several times over so that its figure stands still.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.simulation.cluster import Defaults, cluster_of, simulate_cluster
from simserve.workload import synthetic_workload

DEFAULTS = Defaults(load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100"), EngineOptions())
RATE = 8.0
"""Requests/s of 512 and 256 tokens on each replica: some 70 % of what it can take."""
REPEATS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--router", default="power-of-two")
    args = parser.parse_args()
    each = args.requests // args.replicas
    run_s(1, each, args.router)  # compiles step times, which all runs share
    alone_us = statistics.median(run_s(1, each, args.router) for _ in range(REPEATS)) / each * 1e6
    print(f"1 replica, {each:,} requests: {alone_us:.1f} us a request", flush=True)
    took_s = run_s(args.replicas, args.requests, args.router)
    us = took_s / args.requests * 1e6
    print(f"{args.replicas:,} replicas, {args.requests:,} requests: {took_s:.1f} s, {us:.1f} us a request")
    print(f"  {us / alone_us:.2f} times that on one replica")
    print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


def run_s(replicas: int, requests: int, router: str) -> float:
    """CPU seconds of a run, drawing its requests left out."""
    workload = synthetic_workload(requests, RATE * replicas, 512, 256, seed=1)
    spec = cluster_of({"groups": [{"name": "all", "replicas": replicas}], "router": {"policy": router}}, "benchmark")
    start_s = time.process_time()
    simulate_cluster(workload, spec, DEFAULTS)
    return time.process_time() - start_s


if __name__ == "__main__":
    main()
