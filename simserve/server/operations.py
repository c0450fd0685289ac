"""Endpoints for those who run the server: health and load, metrics, trace, and the switches of a simulated engine.

Paths and bodies are vLLM's where it has them: ``/metrics``, ``/load``, ``/ping``, ``/version``, ``/sleep``,
``/wake_up``, ``/is_sleeping``, ``/reset_prefix_cache``. ``/clock``, ``/trace`` and ``/dashboard`` are SimServe's own.
Where several models are served, ``?model=`` says which one is meant: a model in memory, by default the default model.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol, TypeVar, cast

import orjson
from aiohttp import web

from simserve import __version__
from simserve.engines.controls import ForgetsPrefixes, Paced, Sleeps
from simserve.engines.sleeping import PARTS_BY_LEVEL, SLEEPABLE_PARTS
from simserve.server.clocks import lateness_ms
from simserve.server.cluster_routes import ClusterRoutes
from simserve.server.dashboard.pages import Dashboard
from simserve.server.errors import ApiError
from simserve.server.limits import Drain
from simserve.server.metrics import HttpCounts, HttpMetrics, metrics_page
from simserve.server.models import ModelPool
from simserve.server.same_origin import check_same_origin
from simserve.server.telemetry import Telemetry

Can = TypeVar("Can")

HEALTH = ("/health", "/ping")


class Operator(Protocol):
    """Who answers these: the process that has the engines, or one that asks it. ``http`` counts with its middleware."""

    http: HttpMetrics

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        ...

    async def close(self) -> None:
        """The server ends: let go of all who look at the dashboard; may be called twice."""
        ...


class Operations:
    """The endpoints over ``models``; ``drain`` says whether the server ends.

    ``http_counts`` gathers what all processes that do HTTP have counted; without it there is only this one.
    """

    def __init__(
        self, models: ModelPool, drain: Drain, http_counts: Callable[[], Awaitable[HttpCounts]] | None = None
    ) -> None:
        self.http = HttpMetrics()
        self._models = models
        self._drain = drain
        self._http_counts = http_counts or self.http.of_this_process
        self._dashboard = Dashboard(models)

    async def close(self) -> None:
        await self._dashboard.close()

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        return [
            web.get("/health", self.health),
            web.get("/ping", self.health),
            web.post("/ping", self.health),
            web.get("/version", self.version),
            web.get("/load", self.load),
            web.get("/metrics", self.metrics),
            web.get("/trace", self.trace),
            web.post("/reset_prefix_cache", self.reset_prefix_cache),
            web.post("/sleep", self.sleep),
            web.post("/wake_up", self.wake_up),
            web.get("/is_sleeping", self.is_sleeping),
            web.get("/clock", self.clock),
            web.post("/clock/pause", self.pause_clock),
            web.post("/clock/start", self.start_clock),
            web.post("/clock/speed", self.set_clock_speed),
            *self._dashboard.table(),
            *ClusterRoutes(self._models).table(),
        ]

    async def health(self, request: web.Request) -> web.Response:
        """``GET /health`` and ``/ping``: an empty body, 200, or 503 once the server ends or an engine has failed."""
        failed = any(one.engine.status().failure is not None for one in self._models.telemetry)
        return web.Response(status=503 if failed or self._drain.ending else 200)

    async def version(self, request: web.Request) -> web.Response:
        """``GET /version``"""
        return _json({"version": __version__})

    async def load(self, request: web.Request) -> web.Response:
        """``GET /load``: HTTP requests that generate and are being answered."""
        return _json({"server_load": (await self._http_counts()).generating})

    async def metrics(self, request: web.Request) -> web.Response:
        """``GET /metrics``"""
        engines = [metrics for telemetry in self._models.telemetry for metrics in telemetry.metrics]
        accept, http = request.headers.get("Accept", ""), await self._http_counts()
        page, content_type = await metrics_page(accept, engines, http)
        return web.Response(body=page, headers={"Content-Type": content_type})

    async def trace(self, request: web.Request) -> web.StreamResponse:
        """``GET /trace``: what was served, for ``simserve simulate --trace``."""
        return await self._telemetry(request).trace.send(request)

    async def reset_prefix_cache(self, request: web.Request) -> web.Response:
        """``POST /reset_prefix_cache``: not a success while requests hold KV blocks, as in vLLM."""
        check_same_origin(request)
        for name in ("reset_running_requests", "reset_external"):
            if request.query.get(name, "false").lower() not in ("false", "0"):
                raise ApiError(f"`{name}` is not simulated; leave it out.", param=name, code="unsupported")
        return _json({"success": self._engine(request, ForgetsPrefixes).reset_prefix_cache()})

    async def sleep(self, request: web.Request) -> web.Response:
        """``POST /sleep?level=1&mode=abort``: answered once nothing runs; requests that come wait for the wake-up."""
        check_same_origin(request)
        engine = self._engine(request, Sleeps)
        level, mode = request.query.get("level", "1"), request.query.get("mode", "abort")
        if level not in map(str, PARTS_BY_LEVEL):
            raise ApiError(f"There is no sleep level {level}; choose 0, 1 or 2.", param="level")
        if mode not in ("abort", "wait"):
            raise ApiError(f"Mode {mode!r} is not simulated; choose abort or wait.", param="mode")
        async with self._models.use(request.query.get("model")):  # else it might be unloaded meanwhile
            await engine.sleep(int(level), cast(Literal["abort", "wait"], mode))
        return _json({"status": "sleeping"})

    async def wake_up(self, request: web.Request) -> web.Response:
        """``POST /wake_up?tags=weights&tags=kv_cache``: awake once all parts are; without tags all at once."""
        check_same_origin(request)
        tags = request.query.getall("tags", [])
        for tag in tags:
            if tag not in SLEEPABLE_PARTS:
                raise ApiError(f"Nothing is called {tag!r}; choose of {', '.join(SLEEPABLE_PARTS)}.", param="tags")
        engine = self._engine(request, Sleeps)
        engine.wake_up(tags)
        return _json({"status": "awake" if engine.sleep_level is None else "sleeping"})

    async def is_sleeping(self, request: web.Request) -> web.Response:
        """``GET /is_sleeping``"""
        return _json({"is_sleeping": self._engine(request, Sleeps).sleep_level is not None})

    async def clock(self, request: web.Request) -> web.Response:
        """``GET /clock``: simulated seconds, how fast they go, and how late the server is."""
        return _clock(self._engine(request, Paced))

    async def pause_clock(self, request: web.Request) -> web.Response:
        """``POST /clock/pause``: hold the simulated clock; streams stay open."""
        check_same_origin(request)
        engine = self._engine(request, Paced)
        engine.pause()
        return _clock(engine)

    async def start_clock(self, request: web.Request) -> web.Response:
        """``POST /clock/start``: let it go on."""
        check_same_origin(request)
        engine = self._engine(request, Paced)
        engine.resume()
        return _clock(engine)

    async def set_clock_speed(self, request: web.Request) -> web.Response:
        """``POST /clock/speed`` with ``{"time_scale": 10}``: simulated seconds per second, or "inf"."""
        check_same_origin(request)
        engine = self._engine(request, Paced)
        engine.set_time_scale(_time_scale(await request.read()))
        return _clock(engine)

    def _telemetry(self, request: web.Request) -> Telemetry:
        return self._models.in_memory(request.query.get("model"))

    def _engine(self, request: web.Request, what: type[Can]) -> Can:
        """The engine that is meant, if it can do that; raises :class:`ApiError` (501) if it cannot."""
        engine = self._telemetry(request).engine
        if not isinstance(engine, what):
            raise ApiError("The engine behind this model cannot do that.", status=501)
        return engine


def _clock(engine: Paced) -> web.Response:
    clock = engine.clock
    return _json(
        {
            "clock_s": clock.now_s(),
            "time_scale": "inf" if clock.time_scale == math.inf else clock.time_scale,
            "paused": clock.is_paused,
            "lateness_ms": lateness_ms(engine.punctuality),
        }
    )


def _time_scale(raw: bytes) -> float:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(f"The request body is not valid JSON: {error}.") from None
    scale = body.get("time_scale") if isinstance(body, dict) else None
    if scale == "inf":
        return math.inf
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise ApiError('`time_scale` must be a number above 0, or "inf".', param="time_scale")
    return float(scale)


def _json(body: dict[str, object]) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")
