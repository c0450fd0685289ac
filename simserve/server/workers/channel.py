"""Messages between two processes: JSON objects over a stream socket, each after its length in four bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import orjson

Message = dict[str, Any]

LENGTH_BYTES = 4


class Channel(asyncio.Protocol):
    """One end of a connection. ``on_message`` gets each message, ``on_closed`` is called once when it is over."""

    def __init__(self, on_message: Callable[[Message], None], on_closed: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_closed = on_closed
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def send(self, message: Message) -> None:
        """Send ``message``, dataclasses and all; nothing happens if the connection is over."""
        if self._transport is not None and not self._transport.is_closing():
            body = orjson.dumps(message, option=orjson.OPT_NON_STR_KEYS)
            self._transport.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)

    def close(self) -> None:
        """End the connection once everything is sent."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        at = 0
        while len(received) >= at + LENGTH_BYTES:
            end = at + LENGTH_BYTES + int.from_bytes(received[at : at + LENGTH_BYTES], "big")
            if len(received) < end:
                break
            message = orjson.loads(bytes(received[at + LENGTH_BYTES : end]))
            at = end
            self._on_message(message)
        del received[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_closed()
