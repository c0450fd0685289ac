"""The end of a server: who is inside may finish, nobody new comes in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from aiohttp import web

from simserve.server.errors import ApiError, Handler

ALWAYS = ("/health", "/ping", "/metrics", "/status")
"""What is answered to the last, so that others can see that this server ends."""


class Drain:
    """Counts the requests that are being served, and turns new ones away once the server ends."""

    def __init__(self) -> None:
        self.ending = False
        self.inside = 0
        """Requests that are being served, and responses in the background."""
        self.doors: list[Callable[[], Awaitable[None]]] = []
        """What closes the listening sockets, and streams that end with them; each is called once."""
        self._empty = asyncio.Event()
        self._empty.set()

    async def wait(self, grace_s: float) -> None:
        """Let nobody in from now on and wait for those inside, but no longer than ``grace_s``."""
        self.ending = True
        await self.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._empty.wait()

    async def close(self) -> None:
        """Stop listening; connections that are open stay open."""
        while self.doors:
            await self.doors.pop()()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answers 503 once the server ends."""
        if request.path in ALWAYS:
            return await handler(request)
        if self.ending:
            raise ApiError(
                "The server is shutting down; send the request again later.",
                status=503,
                headers={"Retry-After": "1", "Connection": "close"},
            )
        self._come_in()
        try:
            return await handler(request)
        finally:
            self._go_out()

    @contextmanager
    def inside_now(self) -> Iterator[None]:
        """What is done in this block is waited for at the end."""
        self._come_in()
        try:
            yield
        finally:
            self._go_out()

    def _come_in(self) -> None:
        self.inside += 1
        self._empty.clear()

    def _go_out(self) -> None:
        self.inside -= 1
        if self.inside == 0:
            self._empty.set()
