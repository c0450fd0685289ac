"""How far off ``simserve bench`` measures, against a server of known timing in another process.

    python benchmarks/bench_client.py [--json FILE] [--quick] [--only closed|open|peer] [--guidellm PROGRAM]

Closed loop: TTFT 100 ms, ITL 20 ms, 100 tokens, every place refilled at once; what the client reports too much, what of
the ideal rate it reached and what a token cost it. The truth is the server's own log of when a request arrived and each
token left. Open loop: by how much requests left late, and whether the gaps between them are those that were asked for.
``--guidellm`` also asks that client, installed anywhere, to measure the same server. Figures mean something only on a
machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simserve.bench.load.run import run_jobs
from simserve.bench.load.schedule import Shape
from simserve.bench.options import BenchOptions, Questions, Target
from simserve.bench.plan import make_jobs, make_plan
from simserve.bench.self_test.log import ServerLog, read_log
from simserve.bench.self_test.measure import fixed_timing_server, measure_own_error
from simserve.bench.self_test.server import MODEL, Timing
from simserve.bench.tokens import TokenizerOptions
from simserve.resources import data_dir
from simserve.workload.tokenizer import FALLBACK_MODEL

CLOSED = ((200, 1), (400, 1), (400, 2), (1000, 2))
"""Concurrency and processes."""

OPEN = ((50.0, 1.0), (200.0, 1.0), (500.0, 1.0), (200.0, 0.25), (200.0, 4.0))
"""Requests per second and burstiness."""

PEER_PLACES = 400
TOKENIZER = data_dir("models") / FALLBACK_MODEL

OPEN_S = 20.0
OPEN_TIMING = Timing(ttft_s=0.05, itl_s=0.01, tokens=10)
KS_5_PERCENT = 1.358
"""Kolmogorov-Smirnov's D times the root of n, exceeded by chance in 5 % of samples of the right law."""

KS_GAPS = 1000
KS_LEAST_S = 0.0005
"""Gaps that are tested as sent: enough to see 4 % of a wrong law, and none so short that the machine's own
microseconds are seen instead: of bursts (burstiness 0.25) nearly half the gaps are."""


@dataclass(frozen=True)
class Goal:
    """What a figure should not exceed (or, for a share, not fall below)."""

    key: str
    limit: float
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


GOALS: dict[int, tuple[Goal, ...]] = {
    400: (
        Goal("ttft_mean_ms", 5.0), Goal("ttft_p99_ms", 25.0), Goal("itl_mean_ms", 0.05), Goal("e2el_mean_ms", 5.0),
        Goal("rate", 0.99, at_least=True), Goal("cpu_us_per_token", 30.0),
    ),
    1000: (Goal("ttft_mean_ms", 10.0), Goal("rate", 0.98, at_least=True)),
}  # fmt: skip
OPEN_GOALS = (Goal("lag_p99_ms", 5.0), Goal("ks", KS_5_PERCENT), Goal("ks_of_schedule", KS_5_PERCENT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="a tenth of the load: to see that it runs")
    parser.add_argument("--only", choices=("closed", "open", "peer"))
    parser.add_argument("--rates", type=int, nargs="+", metavar="I", help="open loop: only these of its runs, from 0")
    parser.add_argument("--guidellm", type=Path, metavar="PROGRAM", help="measure this client too, 400 at a time")
    args = parser.parse_args()
    shrink = 10 if args.quick else 1
    figures: dict[str, Any] = {}
    if args.only in (None, "closed"):
        for places, processes in CLOSED:
            figures[f"closed_{places}_{processes}"] = closed_loop(places // shrink, processes, places)
    if args.only in (None, "open"):
        for rate, burstiness in OPEN if args.rates is None else [OPEN[row] for row in args.rates]:
            figures[f"open_{rate:g}_{burstiness:g}"] = open_loop(rate / shrink, burstiness, OPEN_S / shrink)
    if args.guidellm:
        figures[f"guidellm_{PEER_PLACES}"] = guidellm(args.guidellm, PEER_PLACES // shrink)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


def closed_loop(places: int, processes: int, goals_of: int) -> dict[str, float]:
    """Two rounds of ``places`` answers at a time."""
    test = measure_own_error(Shape(max_concurrency=places), processes, places, 0.0, quietly)
    found = {
        "ttft_mean_ms": test.ttft_mean_s * 1e3,
        "ttft_p99_ms": test.ttft_p99_s * 1e3,
        "itl_mean_ms": test.itl_mean_s * 1e3,
        "itl_p99_ms": test.itl_p99_s * 1e3,
        "e2el_mean_ms": test.e2el_mean_s * 1e3,
        "stamp_mean_ms": test.stamp_mean_s * 1e3,
        "stamp_p99_ms": test.stamp_p99_s * 1e3,
        "rate": test.rate,
        "cpu_us_per_token": test.cpu_s_per_token * 1e6,
        "server_first_mean_ms": test.server_first_s * 1e3,
        "server_mean_ms": test.server_mean_s * 1e3,
    }
    show(
        f"closed loop, {places} at a time, {processes} process{'es' * (processes > 1)}", found, GOALS.get(goals_of, ())
    )
    return found


def open_loop(rate: float, burstiness: float, duration_s: float) -> dict[str, float]:
    """``rate`` requests per second for ``duration_s``."""
    with fixed_timing_server(OPEN_TIMING) as url:
        plan = make_plan(
            BenchOptions(
                target=Target(url=url, backend="openai-chat", model=MODEL),
                questions=Questions(count=1, settings={"random_input_len": 64}),
                shape=Shape(request_rate=rate, burstiness=burstiness, duration_s=duration_s),
                tokenizer=TokenizerOptions(skip=True),
            )
        )
        load = run_jobs(make_jobs(plan), quietly)
    lag_ms = np.array([one.sent_s - one.due_s for one in load.outcomes]) * 1e3
    gaps = gaps_between([one.sent_s for one in load.outcomes])
    due = gaps_between([one.due_s for one in load.outcomes])
    found = {
        "requests": len(load.outcomes),
        "failed": sum(not one.ok for one in load.outcomes),
        "lag_mean_ms": float(lag_ms.mean()),
        "lag_p99_ms": float(np.percentile(lag_ms, 99)),
        "rate_share": (len(gaps) / float(gaps.sum())) / rate,
        "gap_cv": float(gaps.std() / gaps.mean()),
        "gap_cv_asked": burstiness**-0.5,
        "ks": kolmogorov_smirnov(gaps[:KS_GAPS], rate, burstiness, KS_LEAST_S),
        "ks_of_schedule": kolmogorov_smirnov(due, rate, burstiness),
        "cpu_share": max(one.cpu_share for one in load.health),
    }
    show(f"open loop, {rate:g} requests/s, burstiness {burstiness:g}", found, OPEN_GOALS)
    return found


def guidellm(program: Path, places: int) -> dict[str, float]:
    """The same closed loop by guidellm, which opens with a few requests more than it counts."""
    timing = Timing()
    with fixed_timing_server(timing) as url, tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"
        command = [
            program, "run", "--disable-console",
            "--backend", f"kind=openai_http,target={url},model={MODEL}",
            "--profile", f"kind=concurrent,streams={places}",
            "--constraint", f"kind=max_requests,count={2 * places}",
            "--data", f"kind=synthetic_text,prompt_tokens=64,output_tokens={timing.tokens}",
            "--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}",
            "--output", f"kind=json,path={told}",
        ]  # fmt: skip
        # Its own packages, and nothing from the net: the tokenizer lies here.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run(command, check=True, capture_output=True, env=environment | {"HF_HUB_OFFLINE": "1"})
        metrics = json.loads(told.read_text())["benchmarks"][0]["metrics"]
        log = read_log(url)
    found = peer_errors(metrics, log, places, timing)
    show(f"guidellm, closed loop, {places} at a time", found, ())
    return found


def peer_errors(metrics: dict[str, Any], log: ServerLog, places: int, timing: Timing) -> dict[str, float]:
    """What guidellm reports less what the server logged. Its ITL is the mean of a request's gaps, as ours is pooled."""

    def told(name: str) -> dict[str, Any]:
        return metrics[name]["successful"]

    begin_s = min(float(row[0]) for row in log.rows.values())
    end_s = max(float(row[-1]) for row in log.rows.values())
    ttft_ms, e2el_ms = log.ttft_s() * 1e3, log.e2el_s() * 1e3
    return {
        "requests": told("time_to_first_token_ms")["count"],
        "ttft_mean_ms": told("time_to_first_token_ms")["mean"] - float(ttft_ms.mean()),
        "ttft_p99_ms": told("time_to_first_token_ms")["percentiles"]["p99"] - float(np.percentile(ttft_ms, 99)),
        "itl_mean_ms": told("inter_token_latency_ms")["mean"] - float(log.itl_s().mean() * 1e3),
        "e2el_mean_ms": told("request_latency")["mean"] * 1e3 - float(e2el_ms.mean()),
        "rate": len(log.rows) / places * timing.e2el_s / (end_s - begin_s),
        "server_first_mean_ms": float(log.lateness_s(timing)[:, 0].mean()) * 1e3,
    }


def gaps_between(times_s: list[float]) -> np.ndarray:
    """Gaps between requests in the order of these times."""
    return np.diff(np.sort(times_s))


def kolmogorov_smirnov(gaps: np.ndarray, rate: float, burstiness: float, least_s: float = 0.0) -> float:
    """D of the gaps above ``least_s`` against the gamma law of ``rate`` above it, times the root of their number.

    The law's distribution function comes from a large sample, as there is no incomplete gamma function in NumPy.
    """
    law = np.sort(np.random.default_rng(0).standard_gamma(burstiness, 1_000_000) / (burstiness * rate))
    law, values = law[law > least_s], np.sort(gaps[gaps > least_s])
    below = np.searchsorted(law, values) / len(law)
    steps = np.arange(len(values) + 1) / len(values)
    distance = max(float(np.max(steps[1:] - below)), float(np.max(below - steps[:-1])))
    return distance * len(values) ** 0.5


def show(what: str, found: dict[str, float], goals: tuple[Goal, ...]) -> None:
    print(what)
    goal_of = {goal.key: goal for goal in goals}
    for key, value in found.items():
        goal = goal_of.get(key)
        sign = "" if goal is None else f"  {'>=' if goal.at_least else '<='} {goal.limit:g}: "
        verdict = "" if goal is None else "met" if goal.is_met(value) else "MISSED"
        print(f"    {key:<24} {value:12.4f}{sign}{verdict}")
    sys.stdout.flush()


def quietly(progress: object, elapsed_s: float) -> None:
    """Show no progress: it would cost what is measured."""


if __name__ == "__main__":
    main()
