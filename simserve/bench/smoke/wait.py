"""Wait until a server is well, saying now and then that it is not yet, and notice if it dies."""

from __future__ import annotations

import time
from collections.abc import Callable

from simserve.bench.server_facts import Server
from simserve.bench.smoke.child import ServerProcess
from simserve.bench.wire.ask import ask
from simserve.errors import ServerError

POLL_S = 0.25
SAY_EVERY_S = 10.0
ASK_TIMEOUT_S = 5.0

Say = Callable[[str], None]


def wait_until_healthy(
    server: Server,
    child: ServerProcess | None,
    timeout_s: float,
    say: Say,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Poll ``/health`` until it is 200 (or, where there is no such path, until models are listed); returns the seconds.

    Raises :class:`ServerError` when the time is up, or as soon as ``child`` is dead, with its last lines.
    """
    start_s = clock()
    next_line_s = start_s + SAY_EVERY_S
    reason = ""
    while True:
        if child is not None and child.exit_code is not None:
            raise ServerError(_obituary(child))
        try:
            status = _status(server, "/health")
            if status == 404:
                status = _status(server, "/v1/models")
            if status == 200:
                return clock() - start_s
            reason = f"it answers {status}"
        except ServerError as error:
            reason = str(error).partition(";")[0]
        now = clock()
        if now - start_s >= timeout_s:
            last = f"; its last lines:\n{_indented(child)}" if child is not None and child.last_lines() else ""
            raise ServerError(f"the server was not well within --timeout {timeout_s:g} s ({reason}){last}")
        if now >= next_line_s:
            next_line_s = now + SAY_EVERY_S
            say(f"waiting for {server.address.url}/health, {now - start_s:.0f} s so far ({reason})")
        sleep(POLL_S)


def _status(server: Server, path: str) -> int:
    return ask(server.address, path, headers=server.headers, insecure=server.insecure, timeout_s=ASK_TIMEOUT_S).status


def _obituary(child: ServerProcess) -> str:
    lines = _indented(child)
    words = f"its last lines:\n{lines}" if lines else "it said nothing"
    return f"the server ended with exit code {child.exit_code} before it was well; {words}"


def _indented(child: ServerProcess | None) -> str:
    return "" if child is None else "\n".join(f"  {line}" for line in child.last_lines())
