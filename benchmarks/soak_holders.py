"""Thousands of connections that are open and say nothing, or the half of a request, for ``soak.py``."""

from __future__ import annotations

import errno
import heapq
import os
import random
import select
import socket
import time
from dataclasses import dataclass

from soak_clients import HOST, NICE

OPENED_PER_S = 500.0
LEAST_S, MOST_S = 20.0, 60.0
"""How long one is held."""

PER_ADDRESS = 10_000
"""Connections from one address of this machine: an address has no more ports than 28,000, and leaves them slowly."""

HALF_A_REQUEST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Le"


@dataclass
class Held:
    """``opened`` in all, ``most`` at a time, ``refused`` by the server or closed by it before their time."""

    opened: int = 0
    most: int = 0
    refused: int = 0


class Holder:
    """Keeps ``count`` connections open, each for a while, and then another one in its place."""

    def __init__(self, port: int, count: int, seed: int) -> None:
        self.held = Held()
        self._port = port
        self._count = count
        self._rng = random.Random(seed)
        self._epoll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._ends: list[tuple[float, int, socket.socket]] = []

    def run(self, seconds: float) -> None:
        """Do so for ``seconds``, opening a few at a time."""
        start_s = time.monotonic()
        while (passed_s := time.monotonic() - start_s) < seconds:
            while len(self._open) < self._count and self.held.opened < passed_s * OPENED_PER_S:
                self._open_one()
            self._close_old()
            for file, event in self._epoll.poll(0.02):
                self._look_at(self._open[file], event)
        for sock in self._open.values():
            sock.close()

    def _open_one(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((f"127.0.0.{2 + self.held.opened // PER_ADDRESS % 200}", 0))
        if sock.connect_ex((HOST, self._port)) not in (0, errno.EINPROGRESS):
            raise ConnectionError("the server does not listen")
        says_something = self._rng.random() < 0.5
        self._epoll.register(sock, select.EPOLLIN | (select.EPOLLOUT if says_something else 0))
        self._open[sock.fileno()] = sock
        self.held.opened += 1
        self.held.most = max(self.held.most, len(self._open))
        end_s = time.monotonic() + self._rng.uniform(LEAST_S, MOST_S)
        heapq.heappush(self._ends, (end_s, self.held.opened, sock))

    def _look_at(self, sock: socket.socket, event: int) -> None:
        try:
            if event & select.EPOLLOUT:
                sock.send(HALF_A_REQUEST)
                self._epoll.modify(sock, select.EPOLLIN)
            elif not sock.recv(4096):
                self._lose(sock)
        except BlockingIOError:
            pass
        except OSError:
            self._lose(sock)

    def _lose(self, sock: socket.socket) -> None:
        self.held.refused += 1
        self._close(sock)

    def _close_old(self) -> None:
        now_s = time.monotonic()
        while self._ends and self._ends[0][0] < now_s:
            sock = heapq.heappop(self._ends)[2]
            if sock.fileno() >= 0:
                self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        del self._open[sock.fileno()]
        sock.close()


def hold(port: int, count: int, seconds: float, seed: int) -> Held:
    """Hold ``count`` connections for so long, in a process that makes way for others."""
    os.nice(NICE)
    holder = Holder(port, count, seed)
    holder.run(seconds)
    return holder.held
