"""Random abuse of a server for as long as you like: what breaks, what leaks, and what it costs those who behave.

    python benchmarks/soak.py [--minutes 5] [--seed 0] [--log FILE]

Clients hang up at any byte, read slowly, send nonsense and tens of megabytes, guess keys, hold a thousand connections
open and say nothing, while well-behaved ones ask for streams. It fails (exit code 1) if the server dies, logs an
unexpected error, keeps a request, a KV block or a file that nobody holds, grows without bound, or fails a well-behaved
client. The lateness of these is printed, and is nobody's fault where the machine itself is busy. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from soak_clients import BAD_CLIENTS, Behave, GoodClient, Manners, behave_well, over_and_over

GOOD_CLIENTS = 16
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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="keep the server's log here")
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    with tempfile.TemporaryDirectory() as folder:
        log = args.log or Path(folder) / "server.log"
        server = Server(log)
        try:
            problems = asyncio.run(soak(server, args.minutes * 60, args.seed))
        finally:
            problems_at_the_end = server.stop()
        problems += problems_at_the_end
    for problem in problems:
        print(f"FAILED: {problem}")
    print("failed" if problems else "passed")
    return 1 if problems else 0


class Server:
    """``simserve serve`` in a process of its own, in real time."""

    def __init__(self, log: Path) -> None:
        self._log = log
        argv = ["-m", "simserve", "serve", "--host", "127.0.0.1", "--port", "0", "--hardware", "H100"]
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
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as response:
            return dict(json.load(response))

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


async def soak(server: Server, seconds: float, seed: int) -> list[str]:
    rng = random.Random(seed)
    at_wall_s = time.monotonic()
    clock_s = (await asyncio.to_thread(server.get, "/clock"))["clock_s"]
    await GoodClient(server.port, clock_s, at_wall_s).ask(rng)  # has everything made that is made when first needed
    files = server.open_files()
    done: Counter[str] = Counter()
    memory: list[float] = []
    watching = asyncio.create_task(watch(server, memory, done))
    with ProcessPoolExecutor(1) as another:
        good = asyncio.get_running_loop().run_in_executor(
            another, behave_well, server.port, clock_s, at_wall_s, GOOD_CLIENTS, seconds
        )
        until_s = time.monotonic() + seconds
        bad = [
            over_and_over(counted(name, behave, server.port, done), until_s, rng.random())
            for name, (behave, count) in BAD_CLIENTS.items()
            for _ in range(count)
        ]
        manners, *_ = await asyncio.gather(good, *bad)
    watching.cancel()
    if not server.is_alive:
        return ["the server died"]
    report(manners, done, await asyncio.to_thread(server.get, "/status"))
    return await leftovers(server, files, memory) + [f"a good client got {what}" for what in manners.failures[:5]]


def counted(name: str, behave: Behave, port: int, done: Counter[str]) -> Callable[[random.Random], Awaitable[None]]:
    async def once(rng: random.Random) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):  # the server may have had enough of it
            await behave(port, rng)
        done[name] += 1

    return once


async def watch(server: Server, memory: list[float], done: Counter[str]) -> None:
    while True:
        memory.append(server.memory_mb())
        print(f"{sum(done.values())} acts of abuse, {server.open_files()} open files, {memory[-1]:.0f} MB", flush=True)
        await asyncio.sleep(REPORT_EVERY_S)


def report(manners: Manners, done: Counter[str], status: dict[str, Any]) -> None:
    print("acts of abuse: " + ", ".join(f"{count} x {name}" for name, count in done.items()))
    p50, p99 = np.percentile(manners.late_s, [50, 99]) * 1e3
    print(
        f"{manners.answers} good answers, whose tokens were read {p50:.2f} ms late in the median, {p99:.2f} ms at p99"
    )
    print(f"the server's own account of the last minute: {status['lateness_ms']}")
    print(f"requests completed {status['completed_requests']}, aborted {status['aborted_requests']}")


async def leftovers(server: Server, files: int, memory: list[float]) -> list[str]:
    """What is still there once everybody has gone."""
    deadline = time.monotonic() + SETTLE_S
    problems = ["?"]
    while problems and time.monotonic() < deadline:
        await asyncio.sleep(1)
        status = await asyncio.to_thread(server.get, "/status")
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
