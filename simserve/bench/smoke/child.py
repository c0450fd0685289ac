"""A server started for the test: its last lines are kept, and it is gone afterwards whatever happens."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from simserve.errors import ConfigError

LAST_LINES = 20
POLITE_S = 10.0
"""How long a server may take to end once it was asked to."""


class ServerProcess:
    """A running command in a process group of its own."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = shlex.join(command)
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        try:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ConfigError(f"cannot start '{self.command}': {error.strerror}; check the command") from None
        # Somebody must read what it says, or it stops when the pipe is full.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def last_lines(self) -> list[str]:
        """What it said last."""
        if self.exit_code is not None:
            self._reader.join(timeout=1.0)
        return list(self._lines)

    def stop(self) -> None:
        """End it and all that it started: politely, then not."""
        for signum, patience_s in ((signal.SIGTERM, POLITE_S), (getattr(signal, "SIGKILL", signal.SIGTERM), POLITE_S)):
            if self._signal(signum):
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=patience_s)
            if self.exit_code is not None and not self._group_lives():
                break
        self._reader.join(timeout=1.0)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()

    def _signal(self, signum: int) -> bool:
        """Send to the whole group; False if there is nobody left."""
        try:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signum)
            else:
                self._process.send_signal(signum)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _group_lives(self) -> bool:
        try:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, 0)
                return True
        except (ProcessLookupError, PermissionError):
            pass
        return False

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.rstrip())


@contextmanager
def started(command: Sequence[str]) -> Iterator[ServerProcess]:
    """Run ``command`` inside the block; a SIGTERM or SIGHUP to us ends it too, like Ctrl-C."""
    with _signals_as_interrupts():
        server = ServerProcess(command)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Let other ways of ending us run the same cleaning up as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def check_port(host: str, port: int) -> None:
    """Raise :class:`ConfigError` if something listens there already."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        raise ConfigError(
            f"port {port} is already in use; stop what listens there, give another --port, or test it with"
            f" --url http://{host}:{port}"
        )


def our_server(
    model: str | None,
    port: int,
    *,
    hardware: str | None = None,
    devices: int | None = None,
    max_model_len: str | None = None,
    memory_share: float | None = None,
) -> list[str]:
    """The command that serves ``model`` by simulation; options mean what they mean for vLLM."""
    command = [sys.executable, "-m", "simserve", "serve", "--host", "127.0.0.1", "--port", str(port)]
    if model is not None:
        command += ["--model", model, "--dtype", dtype_of(model)]
    options = {
        "--hardware": hardware,
        "--tensor-parallel-size": devices,
        "--max-model-len": max_model_len,
        "--gpu-memory-utilization": memory_share,
    }
    return command + [word for name, value in options.items() if value is not None for word in (name, str(value))]


def dtype_of(model: str) -> str:
    """The --dtype that a model's name asks for: half precision for quantised ones, auto where it says nothing."""
    name = model.lower()
    if any(mark in name for mark in ("awq", "gptq", "fp16", "float16", "-half")):
        return "half"
    if any(mark in name for mark in ("bf16", "bfloat16")):
        return "bfloat16"
    return "float32" if any(mark in name for mark in ("fp32", "float32")) else "auto"
