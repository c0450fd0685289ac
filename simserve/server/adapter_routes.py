"""Loading and unloading LoRA adapters, with vLLM's requests, answers and errors."""

from __future__ import annotations

import logging

from aiohttp import web

from simserve.server.models import LoadAdapter, Models, UnloadAdapter
from simserve.server.protocol import parse

log = logging.getLogger("simserve.server")


class AdapterRoutes:
    """``POST /v1/load_lora_adapter`` and ``POST /v1/unload_lora_adapter``."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        return [
            web.post("/v1/load_lora_adapter", self.load),
            web.post("/v1/unload_lora_adapter", self.unload),
        ]

    async def load(self, request: web.Request) -> web.Response:
        """``POST /v1/load_lora_adapter``: from now on the adapter's name is a model's name."""
        adapter = await self._models.load_adapter(parse(await request.read(), LoadAdapter))
        log.info("Loaded LoRA adapter %s of %s", adapter.name, adapter.base)
        return web.Response(text=f"Success: LoRA adapter '{adapter.name}' added successfully.")

    async def unload(self, request: web.Request) -> web.Response:
        """``POST /v1/unload_lora_adapter``; requests that use it go on."""
        name = parse(await request.read(), UnloadAdapter).lora_name
        await self._models.unload_adapter(name)
        log.info("Unloaded LoRA adapter %s", name)
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")
