"""The dashboard's page, its files, and the stream of figures: one picture is made for all who look."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
from aiohttp import web

from simserve.server.errors import ApiError
from simserve.server.models import ModelPool
from simserve.server.streaming import SSE_HEADERS
from simserve.server.telemetry import Telemetry
from simserve.server.wire import EventWire

STATIC = Path(__file__).parent / "static"
CONTENT_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

TICK_S = 0.25
MAX_VIEWERS = 64

PAGE_HEADERS = {
    # The browser itself sees to it that the page talks to nobody but this server.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


class Dashboard:
    """The routes over ``models``; ``?model=`` says which one to look at, by default the default model."""

    def __init__(self, models: ModelPool) -> None:
        self._models = models
        self._audiences: dict[str, _Audience] = {}

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        return [
            web.get("/dashboard", self.page),
            web.get("/dashboard/events", self.events),
            web.get(r"/dashboard/{name:[a-z]+\.(?:css|js|svg)}", self.file),
        ]

    async def page(self, request: web.Request) -> web.Response:
        """``GET /dashboard``"""
        return _file("index.html")

    async def file(self, request: web.Request) -> web.Response:
        """``GET /dashboard/{name}``: a script, a style or a picture of the page."""
        return _file(request.match_info["name"])

    async def events(self, request: web.Request) -> web.StreamResponse:
        """``GET /dashboard/events``: server-sent events, each a JSON object as :meth:`Feed.tick` makes it.

        They end when the model is unloaded.
        """
        telemetry = self._models.in_memory(request.query.get("model"))
        if sum(len(audience.viewers) for audience in self._audiences.values()) >= MAX_VIEWERS:
            raise ApiError(f"{MAX_VIEWERS} people are looking already; try again later.", status=503)
        response = web.StreamResponse(headers=SSE_HEADERS)
        await response.prepare(request)
        wire = EventWire(request.transport, chunked=response.headers.get("Transfer-Encoding") == "chunked")
        await self._audience(telemetry).look(wire)
        await wire.close(response, b"")
        return response

    async def close(self) -> None:
        """The server ends: let go of all who look; may be called twice."""
        audiences, self._audiences = self._audiences, {}
        for audience in audiences.values():
            await audience.close()

    def _audience(self, telemetry: Telemetry) -> _Audience:
        audience = self._audiences.get(telemetry.model_name)
        if audience is None or audience.over or audience.telemetry is not telemetry:
            audience = self._audiences[telemetry.model_name] = _Audience(telemetry, self._models)
        return audience


class _Audience:
    """All who look at one engine, whose feed is asked for figures only while there are any."""

    def __init__(self, telemetry: Telemetry, models: ModelPool) -> None:
        self.telemetry = telemetry
        self.viewers: set[EventWire] = set()
        self._models = models
        self._ticking: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether there is nothing to be seen any more."""
        return self._closing.is_set()

    async def look(self, wire: EventWire) -> None:
        """Send figures to ``wire`` as long as there are any."""
        wire.send(_event(self.telemetry.feed.everything()))
        self.viewers.add(wire)
        try:
            if self._ticking is None:
                self._ticking = asyncio.create_task(self._tick())
            await self._closing.wait()
        finally:
            self.viewers.discard(wire)

    async def close(self) -> None:
        """Let go of all who look."""
        self._closing.set()
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)

    async def _tick(self) -> None:
        while self.viewers:
            if self.telemetry not in self._models.telemetry:
                self._closing.set()
                break
            frame = _event(self.telemetry.feed.tick())
            for wire in self.viewers:
                if wire.has_room():
                    wire.send(frame)
            await asyncio.sleep(TICK_S)
        self._ticking = None


def _event(figures: dict[str, object]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(figures)


def _file(name: str) -> web.Response:
    path = STATIC / name
    if not path.is_file():
        raise web.HTTPNotFound
    headers = {**PAGE_HEADERS, "Content-Type": f"{CONTENT_TYPES[path.suffix]}; charset=utf-8"}
    return web.Response(body=path.read_bytes(), headers=headers)
