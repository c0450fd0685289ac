"""A core for the server and one for its clients, where there are two (Linux).

Left to itself, Linux often wakes a local client on the core of the server that writes to it, where it waits for the
server or interrupts it: what is then measured happens to no client on another machine.
"""

from __future__ import annotations

import os

SERVER_CORE, *_, CLIENT_CORE = sorted(os.sched_getaffinity(0)) * 2


def be_a_client() -> None:
    """Have this process stay on the clients' core."""
    os.sched_setaffinity(0, {CLIENT_CORE})


def make_a_server(process_id: int) -> None:
    """Have a process, which has just begun, stay on the server's core."""
    os.sched_setaffinity(process_id, {SERVER_CORE})
