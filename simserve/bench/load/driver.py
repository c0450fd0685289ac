"""Sends each request when it is due and there is room, and lets the next one in when an answer is complete."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from time import perf_counter

from simserve.bench.load.counters import BINS, bin_of
from simserve.bench.wire.alarm import Alarm
from simserve.bench.wire.connection import Connection
from simserve.bench.wire.encode import Request
from simserve.bench.wire.exchange import Exchange
from simserve.bench.wire.pool import CannotConnect, Pool

BURST = 32
"""Requests sent in a row before the loop may read again: answers to the first must not wait for the last."""

PAUSE_S = 0.1
"""How long a place stays empty after a connection was refused: a server that is gone need not be hammered."""


@dataclass(frozen=True)
class Load:
    """What one process sends. ``due_s`` counts from the start, ascending; ``slots_s`` likewise says when each place of
    a limited concurrency opens (None: no limit).

    With ``stop_after_s`` nothing is sent after that time, and with ``repeat`` the requests are sent over and over until
    then. ``id_prefix`` and the index make a request's id.
    """

    requests: Sequence[Request]
    due_s: Sequence[float]
    slots_s: Sequence[float] | None = None
    stop_after_s: float = math.inf
    repeat: bool = False
    request_timeout_s: float = math.inf
    id_prefix: str = ""
    index_step: int = 1


class Driver:
    """Carries out one :class:`Load` over the connections of ``pool``; ``keep`` is given each finished exchange."""

    def __init__(self, load: Load, pool: Pool, keep: Callable[[Exchange], None]) -> None:
        self._load = load
        self._pool = pool
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._loop, self._pump)
        self._over = self._loop.create_future()
        self._pumping = False
        self._stopped = False
        self._start_s = math.nan
        self._upcoming = self._in_order()
        self._next = next(self._upcoming, None)
        self._slots: list[float] | None = None  # a heap: when each free place became, or becomes, free
        self._under_way: dict[Exchange, tuple[Request, Connection | None]] = {}
        self._retried: set[Exchange] = set()
        self._finished: deque[Exchange] = deque()
        self._begun: set[Exchange] = set()
        self.sent = self.done = self.failed = self.stale = 0
        self._done_events = 0
        self.worst_lag_s = 0.0
        self.ttft = [0] * BINS
        self.itl = [0] * BINS

    async def run(self, start_s: float) -> None:
        """Send everything, the first not before ``start_s``, and wait for all answers."""
        self._start_s = start_s
        if self._load.slots_s is not None:
            self._slots = [start_s + slot_s for slot_s in self._load.slots_s]
            heapify(self._slots)
        self._pump()
        try:
            await self._over
        finally:
            self._alarm.close()

    def stop(self) -> None:
        """Send nothing more; :meth:`run` returns when the answers under way are complete."""
        self._stopped = True
        self._next = None
        self._check_over()

    def abort(self) -> None:
        """Do not wait for answers either."""
        self.stop()
        self._give_up(list(self._under_way), "interrupted")

    def check_timeouts(self) -> None:
        """Give up what has been under way for too long; to be called now and then."""
        limit_s = perf_counter() - self._load.request_timeout_s
        if limit_s > self._start_s:
            late = [exchange for exchange in self._under_way if exchange.sent_s < limit_s]
            self._give_up(late, "timeout")

    @property
    def in_flight(self) -> int:
        """Requests that wait for their answer, or for its end."""
        return len(self._under_way)

    @property
    def events(self) -> int:
        """Server-sent events that have arrived so far."""
        return self._done_events + self._pool.events()

    # --- sending

    def _in_order(self) -> Iterator[tuple[float, Request, int]]:
        load = self._load
        round_ = 0
        while True:
            for due_s, request in zip(load.due_s, load.requests, strict=True):
                yield due_s, request, request.index + round_ * len(load.requests) * load.index_step
            round_ += 1
            if not load.repeat:
                return

    def _pump(self) -> None:
        """Send what is due and has a place; then set the alarm for what comes next."""
        self._pumping = False
        for _ in range(BURST):
            at_s = self._next_at_s()
            now = perf_counter()
            if at_s is None or (at_s - self._start_s >= self._load.stop_after_s):
                if at_s is not None:
                    self.stop()
                return
            if at_s > now:
                self._alarm.set(at_s)
                return
            self._send(at_s)
        self._pump_soon()

    def _pump_soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _next_at_s(self) -> float | None:
        """When the next request may go: due, and a place is free; None if there is no such request or place."""
        if self._next is None:
            return None
        due_s = self._start_s + self._next[0]
        if self._slots is None:
            return due_s
        return max(due_s, self._slots[0]) if self._slots else None

    def _send(self, ready_s: float) -> None:
        assert self._next is not None
        due_s, request, index = self._next
        self._next = next(self._upcoming, None)
        if self._slots is not None:
            heappop(self._slots)
        exchange = Exchange(index, f"{self._load.id_prefix}{index}", self._start_s + due_s, ready_s)
        self.sent += 1
        self._under_way[exchange] = (request, None)
        connection = self._pool.take()
        if connection is not None:
            self._launch(exchange, connection)
        else:
            self._launch_later(exchange)

    def _launch(self, exchange: Exchange, connection: Connection) -> None:
        if exchange not in self._under_way:  # given up while it waited for a connection
            self._pool.give_back(connection)
            return
        request = self._under_way[exchange][0]
        self._under_way[exchange] = (request, connection)
        connection.send(exchange, request.with_id(exchange.request_id), self._on_done)
        self.worst_lag_s = max(self.worst_lag_s, exchange.sent_s - exchange.ready_s)

    def _launch_later(self, exchange: Exchange) -> None:
        def refuse(error: CannotConnect) -> None:
            if exchange in self._under_way:
                exchange.trouble, exchange.detail = error.trouble, str(error)
                exchange.sent_s = exchange.end_s = perf_counter()
                self._finish(exchange)

        self._pool.want(lambda connection: self._launch(exchange, connection), refuse)

    # --- the end of an exchange

    def _on_done(self, connection: Connection, exchange: Exchange) -> None:
        self._done_events += connection.events
        connection.events = 0
        stale = exchange.trouble == "reset" and not exchange.reads
        if stale and exchange not in self._retried and not self._stopped:
            # The server closed an idle connection while the request was on its way: that is no answer to it.
            self._retried.add(exchange)
            self.stale += 1
            self._pool.give_back(connection)
            self._launch_later(exchange)
            return
        self._pool.give_back(connection)
        self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        del self._under_way[exchange]
        self._retried.discard(exchange)
        if self._slots is not None:
            pause_s = PAUSE_S if exchange.trouble in ("refused", "connect") else 0.0
            heappush(self._slots, exchange.end_s + pause_s)
        self.done += 1
        if exchange.trouble:
            self.failed += 1
        if self._next is not None:
            # Not from here: deep in a burst of answers, a burst of requests would delay the other answers.
            self._pump_soon()
        if not self._finished:
            self._loop.call_soon(self._keep_finished)
        self._finished.append(exchange)

    def _keep_finished(self) -> None:
        """Put one exchange away and come back for the next: many end at once, and the loop has to read meanwhile."""
        exchange = self._finished.popleft()
        self._count(exchange)
        self._keep(exchange)
        if self._finished:
            self._loop.call_soon(self._keep_finished)
        else:
            self._check_over()

    def _give_up(self, exchanges: list[Exchange], trouble: str) -> None:
        for exchange in exchanges:
            if exchange not in self._under_way:
                continue
            connection = self._under_way[exchange][1]
            self._retried.add(exchange)
            if connection is not None:
                connection.give_up("timeout" if trouble == "timeout" else "interrupted")
            else:
                exchange.trouble = "timeout" if trouble == "timeout" else "interrupted"
                exchange.sent_s = exchange.end_s = perf_counter()
                self._finish(exchange)

    def count_begun(self) -> None:
        """Count the answers that have begun since the last time, for who looks on; to be called now and then."""
        for exchange in self._under_way:
            if exchange.begun_s and exchange not in self._begun:
                self._begun.add(exchange)
                self.ttft[bin_of(exchange.begun_s - exchange.sent_s)] += 1

    def _count(self, exchange: Exchange) -> None:
        begun = exchange in self._begun
        self._begun.discard(exchange)
        if exchange.trouble or not exchange.begun_s:
            return
        if not begun:
            self.ttft[bin_of(exchange.begun_s - exchange.sent_s)] += 1
        gaps = len(exchange.times_s) - 1 - bisect_left(exchange.times_s, exchange.begun_s)
        if gaps:
            self.itl[bin_of((exchange.times_s[-1] - exchange.begun_s) / gaps)] += 1

    def _check_over(self) -> None:
        if self._next is None and not self._under_way and not self._finished and not self._over.done():
            self._over.set_result(None)
