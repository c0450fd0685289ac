"""A server that answers with exactly the bytes a test gives it, in the pieces and at the pace the test says."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Then(Enum):
    """What else than bytes or a pause (a float, in seconds) can happen to an answer."""

    CLOSE = "end the connection politely"
    RESET = "break it off"
    SILENCE = "say nothing more, ever"


Piece = bytes | float | Then


@dataclass
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RawServer:
    """Calls ``answer`` with each request; ``port`` is where it listens, ``received`` what it was sent."""

    answer: Callable[[Received], Iterable[Piece]]
    port: int = 0
    is_tls: bool = False
    connections: int = 0
    received: list[Received] = field(default_factory=list)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://127.0.0.1:{self.port}"

    def leave(self) -> None:
        """Listen no more; for ``answer`` to call."""
        assert self.listener is not None
        self.listener.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await self._converse(reader, writer)
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            self.received.append(request)
            for piece in self.answer(request):
                if isinstance(piece, bytes):
                    writer.write(piece)
                    await writer.drain()
                elif isinstance(piece, float):
                    await asyncio.sleep(piece)
                elif piece is Then.SILENCE:
                    await reader.read()  # until the client has enough of it
                    return
                else:
                    if piece is Then.RESET:
                        writer.transport.abort()
                    return


async def read_request(reader: asyncio.StreamReader) -> Received | None:
    """The next request; None if the client has gone."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    line, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines if one)}
    method, path, _ = line.split(" ")
    return Received(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@asynccontextmanager
async def raw_server(
    answer: Callable[[Received], Iterable[Piece]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawServer]:
    """Serve on a free port of this machine inside the ``async with`` block."""
    server = RawServer(answer, is_tls=tls is not None)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=512, ssl=tls)
    server.listener = listener
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next turn


@contextmanager
def in_thread(answer: Callable[[Received], Iterable[Piece]]) -> Iterator[RawServer]:
    """The same for a test that is no coroutine: the server runs in a thread of its own."""
    loop, ready, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: list[RawServer] = []

    async def serve() -> None:
        async with raw_server(answer) as server:
            found.append(server)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n") -> list[bytes]:
    """``parts`` as an event stream in chunks, one piece each."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%b\r\n" % (len(part), part) for part in parts), *([end] if end else [])]


def whole(body: bytes | dict[str, Any], status: str = "200 OK", *headers: str) -> bytes:
    """A response with Content-Length."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def sse(*events: dict[str, Any] | str) -> list[bytes]:
    """``events`` as server-sent events, as most servers write them."""
    return [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode() for event in events]
