"""What the routes need to know of models: one process has them itself, or another one has them for several."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from simserve.server.models.adapters import Adapter, LoadAdapter
from simserve.server.service import Service

Json = dict[str, Any]


class Models(Protocol):
    """The models that can be asked for; all that raises, raises :class:`simserve.server.errors.ApiError`."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """End all streams."""
        ...

    def refuse(self, fields: Json) -> None:
        """Raise for a body that asks what the model it names cannot do."""
        ...

    def use(self, name: str | None) -> AbstractAsyncContextManager[Service]:
        """The model of that name, or the default one, in memory inside the ``async with`` block.

        Raises 404 if there is no such model, 503 if it was not loaded in time or too many requests wait.
        """
        ...

    async def cards(self) -> list[Json]:
        """Every name that a request may give, loaded or not, as ``GET /v1/models`` tells it; adapters last."""
        ...

    async def report(self) -> Json:
        """The body of ``GET /status``."""
        ...

    async def engine_load(self, name: str | None) -> dict[str, float]:
        """How busy the engine of a model in memory is, by the names of :mod:`simserve.server.load_header`."""
        ...

    async def states(self) -> list[Json]:
        """Which models are in memory, and how many requests use each."""
        ...

    async def load(self, name: str) -> None:
        """Have a model loaded, as a request for it would."""
        ...

    async def unload(self, name: str) -> None:
        """Take a model out of memory once its requests have ended."""
        ...

    async def load_adapter(self, request: LoadAdapter) -> Adapter:
        """Load a LoRA adapter, by vLLM's rules."""
        ...

    async def unload_adapter(self, name: str) -> None:
        """Unload a LoRA adapter, by vLLM's rules."""
        ...
