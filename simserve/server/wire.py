"""The connection under an event stream: frames go to the socket the moment they are due, without a task in between."""

from __future__ import annotations

import asyncio
import logging
import socket
import time

from aiohttp import web

log = logging.getLogger("simserve.server")

MAX_UNSENT_BYTES = 64 * 1024
"""Of a reader who is behind, in this process; the machine's socket buffers hold more. Then its tokens are kept back,
to go out as one frame when there is room again."""

STALLED_S = 60.0
"""A reader that takes nothing for so long is cut off."""


async def cut_off_stalled_readers(request: web.Request, response: web.StreamResponse) -> None:
    """Have the machine itself do that, where it can (Linux), for every response (an ``on_response_prepare`` signal)."""
    sock = request.transport.get_extra_info("socket") if request.transport is not None else None
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_S * 1e3))


class EventWire:
    """Writes the body of a response whose headers have gone out; ``chunked`` as HTTP/1.1 frames it.

    Raises ConnectionResetError if the client is gone already. Nothing here waits, and a client that goes away later is
    no error: its handler is cancelled.
    """

    __slots__ = (
        "_chunked", "_closed", "_full_since_s", "_is_closing", "_send", "_socket", "_stalled_s", "_transport",
        "_unsent_bytes",
    )  # fmt: skip

    def __init__(self, transport: asyncio.Transport | None, *, chunked: bool, stalled_s: float | None = None) -> None:
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self._transport = transport
        self._chunked = chunked
        self._stalled_s = STALLED_S if stalled_s is None else stalled_s
        self._full_since_s: float | None = None
        self._closed = False
        self._is_closing = transport.is_closing
        self._unsent_bytes = transport.get_write_buffer_size
        self._socket = _plain_socket(transport)
        self._send = None if self._socket is None else self._socket.send

    def has_room(self) -> bool:
        """Whether the reader keeps up well enough to be given more; one that has long stopped reading is cut off."""
        if self._closed:
            return False
        if self._transport.get_write_buffer_size() <= MAX_UNSENT_BYTES:
            self._full_since_s = None
            return not self._transport.is_closing()
        now = time.monotonic()
        if self._full_since_s is None:
            self._full_since_s = now
        elif now - self._full_since_s > self._stalled_s:
            self.cut()
        return False

    def framed(self, frame: bytes) -> bytes:
        """``frame`` as it goes over the wire."""
        return b"%x\r\n%b\r\n" % (len(frame), frame) if self._chunked else frame

    def send(self, frame: bytes) -> None:
        """Write ``frame`` now, or let the transport do it once the socket takes it. Ask :meth:`has_room` first."""
        if self._transport.get_write_buffer_size():
            self._transport.write(self.framed(frame))
        else:
            self._write_now(self.framed(frame))

    def offer(self, data: bytes) -> bool:
        """Write ``data``, which :meth:`framed` has made, if there is room; whether there was. As quick as can be."""
        if self._closed or self._is_closing():
            return False
        if self._unsent_bytes():
            if not self.has_room():
                return False
            self._transport.write(data)
        else:
            self._full_since_s = None
            self._write_now(data)
        return True

    def _write_now(self, data: bytes) -> None:
        """Write ``data``, before which nothing waits in the transport.

        uvloop would write at the end of the loop's round only, after all the other streams' frames are made.
        """
        if self._send is not None:
            try:
                sent = self._send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._transport.abort()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._transport.write(data)

    def cut(self) -> None:
        """End the connection at once."""
        if not self._transport.is_closing():
            log.info("a client that read nothing for %.0f s was cut off", self._stalled_s)
            self._transport.abort()

    async def close(self, response: web.StreamResponse, last: bytes) -> None:
        """Write ``last`` and the end; a reader that does not take them in time is cut off.

        From now on there is no room for frames: a choice that goes on while another has failed must not write behind
        the end.
        """
        self._closed = True
        try:
            async with asyncio.timeout(self._stalled_s):
                await response.write_eof(last)
        except TimeoutError:
            self.cut()
            raise ConnectionResetError("the client stopped reading") from None


class _BorrowedSocket(socket.socket):
    """The transport's own socket, to send on. It is the transport's to close, and this object only lets go of it."""

    def __del__(self) -> None:
        self.detach()


def _plain_socket(transport: asyncio.Transport) -> socket.socket | None:
    """The socket, if bytes sent on it are what the transport would write; not so with TLS."""
    plain = transport.get_extra_info("socket")
    if plain is None or transport.get_extra_info("sslcontext") is not None:
        return None
    return _BorrowedSocket(plain.family, plain.type, plain.proto, fileno=plain.fileno())
