"""Responses that any worker may be asked for: the parent keeps them, and workers reach it over its Unix socket.

Entries travel as bodies of HTTP: in small pieces, which hold up none of the parent's engines, and unread.
"""

from __future__ import annotations

from collections.abc import Callable

import aiohttp
from aiohttp import web

from simserve.server.errors import shutting_down
from simserve.server.responses_api.store import KeptHere
from simserve.server.workers.remote import Link

PATH = "/responses"


class RemoteStore:
    """See :class:`simserve.server.responses_api.store.Store`; ``session`` reaches the parent, as does ``link``."""

    def __init__(self, session: aiohttp.ClientSession, link: Link) -> None:
        self.on_cancel: list[Callable[[str], None]] = []
        self._session = session
        self._link = link
        link.on_cancel = self._cancelled

    async def put(self, number: str, entry: bytes) -> None:
        await self._ask("PUT", number, entry)

    async def get(self, number: str) -> bytes | None:
        status, entry = await self._ask("GET", number)
        return entry if status == 200 else None

    async def remove(self, number: str) -> bool:
        return (await self._ask("DELETE", number))[0] == 200

    async def cancel(self, number: str) -> None:
        await self._ask("POST", number)

    def work(self, number: str, *, begins: bool) -> None:
        self._link.channel.send({"op": "works" if begins else "worked", "id": number})

    def _cancelled(self, number: str) -> None:
        """The parent says that whoever works on the response is to stop it."""
        for told in self.on_cancel:
            told(number)

    async def _ask(self, method: str, number: str, entry: bytes | None = None) -> tuple[int, bytes]:
        try:
            async with self._session.request(method, PATH, params={"id": number}, data=entry) as answer:
                return answer.status, await answer.read()
        except aiohttp.ClientConnectionError:
            raise shutting_down() from None


class StoreRoutes:
    """The parent's end of it, over the ``kept`` responses."""

    def __init__(self, kept: KeptHere) -> None:
        self._kept = kept

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        return [
            web.put(PATH, self._put),
            web.get(PATH, self._get),
            web.delete(PATH, self._remove),
            web.post(PATH, self._cancel),
        ]

    async def _put(self, request: web.Request) -> web.Response:
        await self._kept.put(request.query["id"], await request.read())
        return web.Response()

    async def _get(self, request: web.Request) -> web.Response:
        entry = await self._kept.get(request.query["id"])
        return web.Response(status=404) if entry is None else web.Response(body=entry)

    async def _remove(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if await self._kept.remove(request.query["id"]) else 404)

    async def _cancel(self, request: web.Request) -> web.Response:
        await self._kept.cancel(request.query["id"])
        return web.Response()
