"""What those who run the server ask of a worker, passed on to the parent: one answer, whichever worker was asked."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from simserve.server.errors import shutting_down
from simserve.server.limits import Drain
from simserve.server.metrics import HttpMetrics
from simserve.server.models import ModelPool
from simserve.server.operations import HEALTH, Operations

ASKED = ("Accept", "Content-Type", "Host", "Origin")
"""Headers of a request that mean something to the parent."""

OF_THE_CONNECTION = frozenset(("Connection", "Date", "Keep-Alive", "Server", "Transfer-Encoding"))
"""Headers of an answer that do not leave the worker: it sets its own."""


class Relay:
    """An :class:`simserve.server.operations.Operator` that asks the one which listens on the Unix socket ``path``.

    Make it on the event loop that it is used on; ``drain`` says whether this worker ends.
    """

    def __init__(self, path: str, drain: Drain) -> None:
        self.http = HttpMetrics()
        self._drain = drain
        self.session = aiohttp.ClientSession(
            "http://parent", connector=aiohttp.UnixConnector(path, limit=0), timeout=aiohttp.ClientTimeout()
        )
        self._endless: set[asyncio.Timeout] = set()
        """Streams of events, which end when the server does."""

    def table(self) -> list[web.AbstractRouteDef]:
        routes = Operations(ModelPool([]), self._drain).table()
        return [
            web.RouteDef(one.method, one.path, self._pass_on, one.kwargs)
            for one in routes
            if isinstance(one, web.RouteDef)
        ]

    async def close(self) -> None:
        for end in self._endless:
            end.reschedule(asyncio.get_running_loop().time())

    async def disconnect(self) -> None:
        """Nothing will be passed on any more."""
        await self.session.close()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        """Have the parent answer ``request``."""
        headers = {name: request.headers[name] for name in ASKED if name in request.headers}
        body = await request.read()
        try:
            answer = await self.session.request(request.method, request.path_qs, headers=headers, data=body or None)
        except aiohttp.ClientConnectionError:
            raise shutting_down() from None
        async with answer:
            return await self._copied(request, answer)

    async def _copied(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        kept = [(name, value) for name, value in answer.headers.items() if name not in OF_THE_CONNECTION]
        ending = request.path in HEALTH and self._drain.ending
        response = web.StreamResponse(status=503 if ending else answer.status, headers=CIMultiDict(kept))
        await response.prepare(request)
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as end:
                if answer.content_type == "text/event-stream":
                    self._endless.add(end)
                try:
                    async for part in answer.content.iter_any():
                        await response.write(part)
                finally:
                    self._endless.discard(end)
        await response.write_eof()
        return response
