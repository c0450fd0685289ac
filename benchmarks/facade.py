"""What serving costs and how late tokens leave: a server in one process, its clients in another.

    python benchmarks/facade.py [--seconds 10] [--json FILE] [--quick]

Streams: N of them at 50 tokens/s each, decoded in step by one engine (all N tokens are due at the same instant, and are
written one after the other, half of them before it) and by several engines that know nothing of each other. Printed are
the server's CPU per chunk, scheduler and simulation included, and how long after it was due a token was written (by the
server's own account, at the socket) and was read (by the client); what is early counts as 0 at the write, and as
negative at the read. Answers that are not streamed: requests per second on kept connections. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from cores import be_a_client, make_a_server
from facade_client import StreamTimes, read_streams, requests_per_second

TOKENS_PER_S = 50.0
HERE = Path(__file__).resolve().parent
SETTLE_S = 2.0
"""Left out after the last stream began."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each case is measured (10)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="two seconds and a tenth of the streams: see that it runs")
    args = parser.parse_args()
    be_a_client()
    seconds, shrink = (2.0, 10) if args.quick else (args.seconds, 1)
    figures: dict[str, Any] = {}
    for streams, engines in ((200, 1), (200, 8), (1000, 1), (1000, 40)):
        figures[f"{streams}_streams_{engines}_engines"] = streaming(streams // shrink, engines, seconds)
    figures["not_streamed"] = whole_answers(seconds)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


@dataclass
class Ledger:
    """What the server knows; ``steps`` per engine: the simulated times at which they ended, and the wall times at which
    that was due. ``write_late_s`` are the median and the 99th percentile, of which tokens that are early count as 0;
    ``write_early_s`` is the 99th percentile of how early those are."""

    steps: dict[str, list[list[float]]]
    write_late_s: list[float]
    write_early_s: float


class Server:
    """A server of its own process, as ``facade_server.py`` has it; leaves the due times of all steps when it ends."""

    def __init__(self, engines: int, batch: int, tokens_per_s: float | None) -> None:
        rate = "inf" if tokens_per_s is None else str(tokens_per_s)
        argv = [sys.executable, str(HERE / "facade_server.py"), str(engines), str(batch), rate]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        make_a_server(self._process.pid)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def cpu_s(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Seconds of CPU that the process has used: its own, and the kernel's on its behalf."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return np.array([int(fields[11]), int(fields[12])]) / os.sysconf("SC_CLK_TCK")

    def look(self) -> None:
        """What is written late from now on is counted anew; what :meth:`stop` tells is from one look to the next."""
        assert self._process.stdin is not None
        self._process.stdin.write("look\n")
        self._process.stdin.flush()

    def stop(self) -> Ledger:
        """Stop it, and have what it has written down."""
        out, _ = self._process.communicate("stop\n", timeout=60)
        return Ledger(**json.loads(out))


def streaming(streams: int, engines: int, seconds: float) -> dict[str, float]:
    server = Server(engines, streams // engines, TOKENS_PER_S)
    samples: list[tuple[float, Any]] = []

    def look() -> None:
        samples.append((time.monotonic(), server.cpu_s()))
        server.look()

    times = read_streams(server.port, streams, SETTLE_S + seconds, TOKENS_PER_S, look)
    ledger = server.stop()
    (start_s, cpu_start), *_, (end_s, cpu_end) = samples
    late_ms = lateness_ms(times, ledger.steps, start_s, end_s)
    used_s = cpu_end - cpu_start
    figures = {
        "chunks_per_s": len(late_ms) / (end_s - start_s),
        "cpu_us_per_chunk": float(used_s.sum()) / len(late_ms) * 1e6,
        "of_it_kernel_us": float(used_s[1]) / len(late_ms) * 1e6,
        "server_cores": float(used_s.sum()) / (end_s - start_s),
        "write_late_p50_ms": ledger.write_late_s[0] * 1e3,
        "write_late_p99_ms": ledger.write_late_s[1] * 1e3,
        "early_writes_p99_ms": ledger.write_early_s * 1e3,
        "read_late_p1_ms": float(np.percentile(late_ms, 1)),
        "read_late_p50_ms": float(np.percentile(late_ms, 50)),
        "read_late_p99_ms": float(np.percentile(late_ms, 99)),
    }
    show(f"{streams} streams, {engines} engine{'s' if engines > 1 else ''}", figures)
    return figures


def lateness_ms(
    times: list[StreamTimes], steps: dict[str, list[list[float]]], start_s: float, end_s: float
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How late each token that was read between ``start_s`` and ``end_s`` was, by the steps that made them."""
    engines = [tuple(np.array(column) for column in columns) for columns in steps.values()]
    late: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    for stream in times:
        ends_s, due_s = next(columns for columns in engines if stream.first_token_s in columns[0])
        first = int(np.searchsorted(ends_s, stream.first_token_s))
        read_s = np.array(stream.read_s)
        due = due_s[first : first + len(read_s)]
        inside = (read_s >= start_s) & (read_s < end_s)
        late.append((read_s - due)[inside] * 1e3)
    return np.concatenate(late)


def whole_answers(seconds: float) -> dict[str, float]:
    server = Server(1, 256, None)
    requests_per_second(server.port, 1.0)  # warms up
    cpu, rate = server.cpu_s(), requests_per_second(server.port, seconds)
    used_s = float((server.cpu_s() - cpu).sum())
    server.stop()
    figures = {"requests_per_s": rate, "cpu_us_per_request": used_s / (rate * seconds) * 1e6}
    show("not streamed, 16 tokens, 32 connections", figures)
    return figures


def show(what: str, figures: dict[str, float]) -> None:
    print(what)
    for name, value in figures.items():
        print(f"    {name:<22} {value:12,.2f}", flush=True)


if __name__ == "__main__":
    main()
