"""What an administrator may look at and change while the server runs."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict

from simserve.server.failures import Failures
from simserve.server.models import Models
from simserve.server.protocol import parse
from simserve.server.settings import FailuresSection


class ConfigChange(BaseModel):
    """Body of ``POST /admin/config``: keys of the sections that can change; the others stay as they are."""

    model_config = ConfigDict(extra="forbid")

    failures: dict[str, Any] = {}


class ModelName(BaseModel):
    """Body of ``POST /admin/models/load`` and ``unload``."""

    model_config = ConfigDict(extra="forbid")

    model: str


class AdminRoutes:
    """``/admin/...``: the settings that can change, and which models are in memory."""

    def __init__(self, models: Models, failures: Failures) -> None:
        self._models = models
        self._failures = failures

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        return [
            web.get("/admin/config", self.config),
            web.post("/admin/config", self.change),
            web.get("/admin/models", self.models),
            web.post("/admin/models/load", self.load),
            web.post("/admin/models/unload", self.unload),
        ]

    async def config(self, request: web.Request) -> web.Response:
        """``GET /admin/config``"""
        return _json({"failures": self._failures.settings.model_dump() | {"enabled": self._failures.settings.on}})

    async def change(self, request: web.Request) -> web.Response:
        """``POST /admin/config``: all of it or, if something is wrong, nothing."""
        change = parse(await request.read(), ConfigChange)
        now = self._failures.settings.model_dump(exclude_unset=True)
        await self._failures.change(parse(orjson.dumps(now | change.failures), FailuresSection))
        return await self.config(request)

    async def models(self, request: web.Request) -> web.Response:
        """``GET /admin/models``"""
        return _json({"models": await self._models.states()})

    async def load(self, request: web.Request) -> web.Response:
        """``POST /admin/models/load``: answers when the model is in memory."""
        await self._models.load(await _model_in(request))
        return await self.models(request)

    async def unload(self, request: web.Request) -> web.Response:
        """``POST /admin/models/unload``: answers when its requests have ended and it is out of memory."""
        await self._models.unload(await _model_in(request))
        return await self.models(request)


async def _model_in(request: web.Request) -> str:
    return parse(await request.read(), ModelName).model


def _json(body: dict[str, object]) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")
