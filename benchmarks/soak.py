"""Random abuse of a server for as long as you like: what breaks, what leaks, and what it costs those who behave.

    python benchmarks/soak.py [--minutes 5] [--connections 10000] [--seed 0] [--log FILE]

Clients hang up at any byte, read slowly, send nonsense and tens of megabytes, guess keys, and hold ten thousand
connections open and say nothing, while well-behaved ones ask for streams. It fails (exit code 1) if the server dies,
logs an unexpected error, keeps a request, a KV block or a file that nobody holds, grows without bound, takes a guessed
key, or fails a well-behaved client. How late the tokens of these were is printed. The abusers have processes of their
own, which make way for the server and for those who behave; an hour of it needs nothing but the hour. Linux only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from soak_clients import KEY, Manners, behave_badly, behave_well
from soak_holders import Held, hold

GOOD_CLIENTS = 16
SPARE_FILES = 1000
"""That the server needs beside the connections that say nothing."""

SETTLE_S = 75.0
"""How long what is left over may take to go: a reader that takes nothing is cut off after 60 s."""

MEMORY_SLACK_MB = 64.0
"""Growth from a quarter of the way to the end that is no leak: the trace of what was served fills up to its bound."""

OWN_FILES = 16
"""Files that the server may have open beyond those at the start: what it opens once and keeps."""

REPORT_EVERY_S = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=10_000, help="open and silent at a time (10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="keep the server's log here")
    args = parser.parse_args()
    connections = min(args.connections, allowed_files(args.connections + SPARE_FILES) - SPARE_FILES)
    with tempfile.TemporaryDirectory() as folder:
        log = args.log or Path(folder) / "server.log"
        server = Server(log)
        try:
            problems = soak(server, connections, args.minutes * 60, args.seed)
        finally:
            problems_at_the_end = server.stop()
        problems += problems_at_the_end
    for problem in problems:
        print(f"FAILED: {problem}")
    print("failed" if problems else "passed")
    return 1 if problems else 0


def allowed_files(wanted: int) -> int:
    """How many files a process may open, after asking for ``wanted``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(wanted, hard), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, limit)), limit))
            break
        except (ValueError, OSError):
            continue  # only root may raise the hard limit
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        print(f"a process may open {soft} files here, of {wanted} that are wanted: fewer connections are held open")
    return soft


class Server:
    """``simserve serve`` in a process of its own, in real time."""

    def __init__(self, log: Path) -> None:
        self._log = log
        argv = ["-m", "simserve", "serve", "--host", "127.0.0.1", "--port", "0", "--hardware", "H100", "--api-key", KEY]
        with log.open("wb") as out:
            self._process = subprocess.Popen([sys.executable, *argv], stdout=out, stderr=subprocess.STDOUT)
        self.port = self._wait_for_port()

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            for line in self._log.read_text().splitlines():
                if line.startswith("Listening on "):
                    return int(line.split()[2].rsplit(":", 1)[1])
            time.sleep(0.1)
        raise SystemExit(f"the server did not start:\n{self._log.read_text()}")

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def get(self, path: str) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers={"Authorization": f"Bearer {KEY}"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return dict(json.load(response))

    def started_wall_s(self) -> float:
        """When its clock showed 0, by ours: the reading that took least time is the least wrong."""
        readings = []
        for _ in range(20):
            before_s = time.monotonic()
            clock_s = self.get("/clock")["clock_s"]
            after_s = time.monotonic()
            readings.append((after_s - before_s, (before_s + after_s) / 2 - clock_s))
        return float(min(readings)[1])

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def memory_mb(self) -> float:
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    def stop(self) -> list[str]:
        """End it; what it had to complain about."""
        problems = []
        self._process.terminate()
        try:
            code = self._process.wait(20)
            if code != 0:
                problems.append(f"the server ended with exit code {code}")
        except subprocess.TimeoutExpired:
            self._process.kill()
            problems.append("the server did not stop within 20 s of SIGTERM")
        text = self._log.read_text(errors="replace")
        for sign in ("Traceback", "unexpected error", "was never retrieved"):
            if sign in text:
                at = text.index(sign)
                problems.append(f"the server's log says {text[max(0, at - 300) : at + 1500]!r}")
        return problems


def soak(server: Server, connections: int, seconds: float, seed: int) -> list[str]:
    started_wall_s = server.started_wall_s()
    rng = random.Random(seed)
    behave_well(server.port, started_wall_s, 1, 0.1)  # has everything made that is made when first needed
    files = server.open_files()
    memory: list[float] = []
    over = threading.Event()
    watching = threading.Thread(target=watch, args=(server, memory, over))
    watching.start()
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as others:
        good = others.submit(behave_well, server.port, started_wall_s, GOOD_CLIENTS, seconds)
        bad = others.submit(behave_badly, server.port, seconds, rng.randrange(2**32))
        silent = others.submit(hold, server.port, connections, seconds, rng.randrange(2**32))
        try:
            manners, done, held = good.result(), bad.result(), silent.result()
        finally:
            over.set()
            watching.join()
    if not server.is_alive:
        return ["the server died"]
    report(manners, done, held, server.get("/status"))
    return leftovers(server, files, memory) + [f"a good client got {what}" for what in manners.failures[:5]]


def watch(server: Server, memory: list[float], over: threading.Event) -> None:
    start_s = time.monotonic()
    while server.is_alive:
        memory.append(server.memory_mb())
        passed_s = time.monotonic() - start_s
        print(f"{passed_s:.0f} s: {server.open_files()} open files, {memory[-1]:.0f} MB", flush=True)
        if over.wait(REPORT_EVERY_S):
            return


def report(manners: Manners, done: Counter[str], held: Held, status: dict[str, Any]) -> None:
    print("acts of abuse: " + ", ".join(f"{count} x {name}" for name, count in done.items()))
    print(f"{held.opened} silent connections, up to {held.most} at a time; the server closed {held.refused} of them")
    print(f"{manners.answers} good answers", end="")
    if manners.late_s:
        p50, p99 = np.percentile(manners.late_s, [50, 99]) * 1e3
        print(f", whose tokens were read {p50:.2f} ms late in the median, {p99:.2f} ms at p99", end="")
    print()
    print(f"the server's own account of the last minute: {status['lateness_ms']}")
    print(f"requests completed {status['completed_requests']}, aborted {status['aborted_requests']}")


def leftovers(server: Server, files: int, memory: list[float]) -> list[str]:
    """What is still there once everybody has gone."""
    deadline = time.monotonic() + SETTLE_S
    problems = ["?"]
    while problems and time.monotonic() < deadline:
        time.sleep(1)
        status = server.get("/status")
        problems = [
            f"{status[name]} {name.replace('_', ' ')} left" for name in ("running_requests", "pending_requests")
            if status[name]
        ]  # fmt: skip
        if status["kv_blocks"]["used"]:
            problems.append(f"{status['kv_blocks']['used']} KV blocks left in use")
        if server.open_files() > files + OWN_FILES:
            problems.append(f"{server.open_files()} open files, {files} at the start")
    grown_mb = server.memory_mb() - memory[len(memory) // 4]
    print(
        f"memory {memory[0]:.0f} MB at the start, {server.memory_mb():.0f} MB at the end; {server.open_files()} files"
    )
    if grown_mb > MEMORY_SLACK_MB:
        problems.append(f"memory grew by {grown_mb:.0f} MB from a quarter of the way on")
    return problems


if __name__ == "__main__":
    sys.exit(main())
