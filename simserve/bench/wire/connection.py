"""One connection: sends one request at a time and stamps whatever arrives, the moment it arrives.

``data_received`` is the hot path. It runs once per token and stream, so it stamps first, keeps the bytes, and looks
only for the end of the answer: chunk by chunk, because in a closed loop many answers end at once, and looking through
each of them only then would delay the stamps of the others.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from time import perf_counter
from typing import cast

from simserve.bench.wire.exchange import Exchange, Trouble
from simserve.bench.wire.framing import ChunkScanner, FramingError, Head, parse_head

OnDone = Callable[["Connection", Exchange], None]

IDLE, IN_HEAD, CHUNKED, COUNTED, UNTIL_CLOSE = range(5)
"""What the bytes that come next are part of."""


class Connection(asyncio.Protocol):
    """A connection of a :class:`~simserve.bench.wire.pool.Pool`, which is told when an exchange or all is over."""

    __slots__ = (
        "_exchange", "_missing", "_on_close", "_on_done", "_scanner", "_socket", "_state", "_transport", "events",
        "is_open",
    )  # fmt: skip

    def __init__(self, plain_socket: socket.socket | None, on_close: Callable[[Connection], None]) -> None:
        self._socket = plain_socket
        self._on_close = on_close
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._on_done: OnDone | None = None
        self._state = IDLE
        self._missing = 0
        self._scanner = ChunkScanner()
        self.is_open = False
        self.events = 0

    # --- what the pool and the driver call

    def send(self, exchange: Exchange, message: bytes, on_done: OnDone) -> None:
        """Send ``message``; ``on_done`` is called once, when the answer is complete or will not come."""
        self._exchange = exchange
        self._on_done = on_done
        self._state = IN_HEAD
        exchange.sent_s = perf_counter()
        self._write(message)

    def give_up(self, trouble: Trouble, detail: str = "") -> None:
        """End the exchange under way as failed and close the connection."""
        self._finish(trouble, detail)
        self.close()

    def close(self) -> None:
        """Close at once; there is nothing left to say."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def _write(self, message: bytes) -> None:
        # Straight to the kernel where there is no TLS: a transport of uvloop would write at the end of the loop's
        # turn, after a burst of other requests, and the stamp would be that much too early.
        assert self._transport is not None
        if self._socket is None:
            self._transport.write(message)
            return
        try:
            sent = self._socket.send(message)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            asyncio.get_running_loop().call_soon(self.give_up, "reset", str(error.strerror))
            return
        if sent < len(message):
            self._transport.write(message[sent:])

    # --- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        exchange = self._exchange
        if exchange is None:
            self.close()  # bytes that nobody asked for: whatever they are, they must not become the next answer
            return
        exchange.times_s.append(now)
        exchange.reads.append(data)
        if events := data.count(b"data:"):
            self.events += events
            if not exchange.begun_s:
                exchange.begun_s = now
        state = self._state
        if state == CHUNKED:
            self._scan(data)
        elif state == COUNTED:
            self._missing -= len(data)
            if self._missing <= 0:
                self._finish("" if self._missing == 0 else "protocol", "more bytes than Content-Length says")
        elif state == IN_HEAD:
            self._read_head(exchange)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._exchange is not None:
            ended_well = self._state == UNTIL_CLOSE and error is None
            self._finish("" if ended_well else "reset", getattr(error, "strerror", None) or "")
        self._on_close(self)

    # --- the end of an answer

    def _read_head(self, exchange: Exchange) -> None:
        raw = exchange.reads[0] if len(exchange.reads) == 1 else b"".join(exchange.reads)
        try:
            head = parse_head(raw)
            if head is not None:
                self._begin_body(head, raw[head.size :])
        except FramingError as error:
            self.give_up("protocol", str(error))

    def _begin_body(self, head: Head, arrived: bytes) -> None:
        if not head.keeps_alive:
            self.is_open = False  # for others: no further request goes out on it
        length = head.content_length
        if head.is_chunked:
            self._state = CHUNKED
            self._scanner = ChunkScanner()
            self._scan(arrived)
        elif length is None:
            self._state = UNTIL_CLOSE
        else:
            self._state = COUNTED
            self._missing = length - len(arrived)
            if self._missing <= 0:
                self._finish("" if self._missing == 0 else "protocol", "more bytes than Content-Length says")

    def _scan(self, data: bytes) -> None:
        try:
            if self._scanner.feed(data):
                self._finish()
        except FramingError as error:
            self.give_up("protocol", str(error))

    def _finish(self, trouble: Trouble = "", detail: str = "") -> None:
        exchange, on_done = self._exchange, self._on_done
        if exchange is None or on_done is None:
            return
        self._exchange = self._on_done = None
        self._state = IDLE
        exchange.end_s = perf_counter() if trouble or not exchange.times_s else exchange.times_s[-1]
        exchange.trouble = trouble
        exchange.detail = detail if trouble else ""
        if not self.is_open or trouble:
            self.close()
        on_done(self, exchange)
