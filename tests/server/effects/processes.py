"""Keys whose effects show outside: on the network, among processes, in what is printed and written."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cli.test_serve import COMMAND, START_S, Server
from server.effects.effect import Effect, Look, more, to
from server.serving import FAST

FOLDER = "FOLDER"
"""Stands in settings for the folder of one look."""


@contextmanager
def serving(text: str, folder: Path) -> Iterator[Server]:
    """``simserve serve`` as a process with just these settings."""
    config = folder / "config.yaml"
    config.write_text(text.replace(FOLDER, str(folder)))
    process = subprocess.Popen(
        [*COMMAND, "--config", str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    watchdog = threading.Timer(START_S, process.kill)
    watchdog.start()
    try:
        with process:
            server = Server(process)
            watchdog.cancel()
            yield server
            process.kill()
    finally:
        watchdog.cancel()
        process.kill()


def outside(look: Callable[[Server], Any]) -> Look:
    """What ``look`` sees of a server in a process of its own; in a thread."""

    def run(text: str) -> Any:
        with TemporaryDirectory() as folder, serving(text, Path(folder)) as server:
            return look(server)

    async def in_thread(text: str) -> Any:
        return await asyncio.to_thread(run, text)

    return in_thread


@dataclass(frozen=True)
class Left:
    """What a server has printed, and the names of its log files, once it has answered some requests and has ended."""

    printed: str
    files: tuple[str, ...]


@cache
def left_by(text: str) -> Left:
    """Once for each text: starting a process takes its time."""
    with TemporaryDirectory() as folder, serving(text, Path(folder)) as server:
        for _ in range(12):
            server.complete(max_tokens=1)
        assert server.stop(signal.SIGTERM) == 0
        return Left(server.log, tuple(sorted(path.name for path in Path(folder).glob("server.log*"))))


def left(look: Callable[[Left], Any]) -> Look:
    """What ``look`` sees in what a server has left."""

    async def in_thread(text: str) -> Any:
        return look(await asyncio.to_thread(left_by, text))

    return in_thread


def workers(server: Server) -> int:
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    return sum(b"simserve.server.workers.worker" in command for command in commands)


def stream_ended_as_it_should(server: Server) -> bool:
    """Whether a stream that is open at SIGTERM may end."""
    body = json.dumps({"prompt": "x", "max_tokens": 1900, "stream": True}).encode()
    request = urllib.request.Request(f"{server.url}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        response.readline()
        server.process.send_signal(signal.SIGTERM)
        try:
            return bool(response.read().count(b'"finish_reason":"length"'))
        except OSError:
            return False


def put_aside(left: Left) -> int:
    return len(left.files) - 1


def is_json(left: Left) -> bool:
    return all(line.startswith("{") for line in left.printed.splitlines() if "completions" in line)


def prints(text: str) -> Callable[[Left], bool]:
    return lambda left: text in left.printed


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


PORT = free_port()
LOCAL = f"{FAST}server: {{host: 127.0.0.1, port: 0}}\n"
FILE = f"{LOCAL}logging: {{path: {FOLDER}/server.log}}\n"
SMALL = FILE.replace("server.log", "server.log, rotation: 300 B")
LIVE = LOCAL.replace(".inf", "1")

EFFECTS = {
    "server.host": Effect(
        LOCAL.replace("127.0.0.1", "127.0.0.2"),
        outside(lambda server: server.url.rpartition(":")[0]),
        to("http://127.0.0.2"),
        LOCAL,
    ),
    "server.port": Effect(
        LOCAL.replace("port: 0", f"port: {PORT}"),
        outside(lambda server: int(re.split(":", server.url)[-1])),
        to(PORT),
        LOCAL,
    ),
    "server.workers": Effect(LOCAL.replace("port: 0", "port: 0, workers: 2"), outside(workers), to(2), LOCAL),
    "server.shutdown_grace": Effect(
        LIVE.replace("port: 0", "port: 0, shutdown_grace: 0 s"),
        outside(stream_ended_as_it_should),
        to(False),
        LIVE.replace("port: 0", "port: 0, shutdown_grace: 60 s"),
    ),
    "logging.level": Effect(f"{LOCAL}logging: {{level: debug}}", left(prints("Finished request")), to(True), LOCAL),
    "logging.format": Effect(f"{LOCAL}logging: {{format: json}}", left(is_json), to(True), LOCAL),
    "logging.console": Effect(
        f"{LOCAL}logging: {{console: false}}", left(prints("POST /v1/completions")), to(False), LOCAL
    ),
    "logging.path": Effect(FILE, left(lambda left: left.files), to(("server.log",)), LOCAL),
    "logging.rotation": Effect(SMALL, left(put_aside), more, FILE),
    "logging.retention": Effect(SMALL.replace("300 B", "300 B, retention: 1"), left(put_aside), to(1), SMALL),
    "logging.access": Effect(
        f"{LOCAL}logging: {{access: false}}", left(prints('"POST /v1/completions" 200')), to(False), LOCAL
    ),
}
