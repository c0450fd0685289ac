"""The same trace in simulated time and through a server: how far pacing moves what clients see.

    python benchmarks/same_trace.py [--requests 450] [--rate 3] [--time-scale 20] [--json FILE]

One workload, Poisson arrivals and lognormal lengths, goes through ``simulate`` as a batch job, and is sent to
``simserve serve`` at ``--time-scale``, each request at its time. Printed are percentiles of TTFT and ITL in simulated
milliseconds: of the batch run, as the server says in the last chunk's ``metrics``, and by the client's own clock, times
the scale. What differs is when a request came and a token left: the milliseconds that this machine is late
count ``--time-scale`` times.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
import uvloop
from cores import be_a_client, make_a_server

from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.simulation import simulate
from simserve.workload import Workload

MODEL, HARDWARE = "meta-llama/Llama-3.1-8B-Instruct", "A100"
PERCENTS = (50, 90, 99)
Floats = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=450)
    parser.add_argument("--rate", type=float, default=3.0, help="requests per simulated second (3)")
    parser.add_argument("--time-scale", type=float, default=20.0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    workload = drawn(args.requests, args.rate)
    records = simulate(workload, load_model(MODEL), load_hardware(HARDWARE), EngineOptions()).records
    rows = {
        "TTFT, simulate": records.first_token_s - records.arrival_s,
        "ITL, simulate": np.repeat(records.gaps.gap_s, records.gaps.count),
    }
    served = uvloop.run(through_a_server(workload, args.time_scale))
    rows["TTFT, server's clock"] = np.array([ttft_s for ttft_s, _ in served])
    rows["TTFT, client's clock"] = np.array([(times[1] - times[0]) * args.time_scale for _, times in served])
    rows["ITL, client's clock"] = np.concatenate([np.diff(times[1:]) * args.time_scale for _, times in served])
    figures = {
        name: dict(zip(map(str, PERCENTS), percentiles_ms(values), strict=True)) for name, values in rows.items()
    }
    for name in sorted(figures, reverse=True):
        print(f"{name:<22}", *(f"p{percent} {ms:9.2f} ms" for percent, ms in figures[name].items()))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


def drawn(requests: int, rate: float) -> Workload:
    """Prompts of some 300 tokens that share nothing, answers of some 120."""
    random = np.random.default_rng(0)
    arrival_s = np.cumsum(random.exponential(1 / rate, requests))
    lengths = [np.clip(random.lognormal(mean, 0.6, requests), 1, 4000).astype(np.int64) for mean in (5.7, 4.8)]
    return Workload("drawn", arrival_s, *lengths)


def percentiles_ms(values_s: Floats) -> list[float]:
    return [float(one) * 1e3 for one in np.percentile(values_s, PERCENTS)]


@contextmanager
def serving(time_scale: float) -> Iterator[str]:
    """The URL of a server in a process of its own."""
    argv = [sys.executable, "-m", "simserve", "serve", "--model", MODEL, "--hardware", HARDWARE]
    argv += ["--host", "127.0.0.1", "--port", "0", "--time-scale", str(time_scale)]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    make_a_server(server.pid)
    be_a_client()
    assert server.stdout is not None
    try:
        line = next(line for line in server.stdout if "Listening on" in line)
        threading.Thread(target=server.stdout.read, daemon=True).start()  # or its log would fill the pipe
        yield line[line.index("http://") :].split()[0]
    finally:
        server.terminate()
        server.wait()


async def through_a_server(workload: Workload, time_scale: float) -> list[tuple[float, Floats]]:
    """Of each request: TTFT in simulated seconds by the server, and when it was sent and each token read, by ours."""
    with serving(time_scale) as url:
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
            due_s = time.monotonic() + 0.5 + workload.arrival_s / time_scale
            sizes = zip(due_s, workload.input_tokens.tolist(), workload.output_tokens.tolist(), strict=True)
            return list(await asyncio.gather(*(send(session, at, *one) for at, one in enumerate(sizes))))


async def send(
    session: aiohttp.ClientSession, number: int, due_s: float, prompt: int, tokens: int
) -> tuple[float, Floats]:
    # No two prompts begin alike, so that none finds another's blocks in the prefix cache.
    ids = [1000 + number % 50_000, 7 + number // 50_000, *[11] * (prompt - 2)][:prompt]
    body: dict[str, Any] = {"prompt": ids, "max_tokens": tokens, "ignore_eos": True, "stream": True}
    body["stream_options"] = {"include_metrics": True}
    await asyncio.sleep(due_s - time.monotonic())
    times, last = [time.monotonic()], b""
    async with session.post("/v1/completions", json=body) as response:
        async for data in response.content.iter_any():
            times += [time.monotonic()] * data.count(b'"finish_reason":')
            last = (last + data)[-4000:]
    metrics = next(line for line in last.split(b"\n") if b'"metrics":' in line)
    return json.loads(metrics.removeprefix(b"data: "))["metrics"][0]["ttft_ms"] / 1e3, np.array(times)


if __name__ == "__main__":
    main()
