"""One place for a model in the pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from simserve.engines.base import Engine, GenerationRequest, TokenEvent
from simserve.server.models.loadable import Loadable
from simserve.server.service import Service
from simserve.server.telemetry import Telemetry


@dataclass(eq=False)
class Slot:
    """One available model and what has become of it; ``pins`` are requests that use it or wait for its load.

    ``telemetry`` is of the engine in memory: it begins and ends with it. ``waiting`` wait until they may pin it,
    ``entering`` have a place in its engine's queue and are not there yet.
    """

    model: Loadable
    service: Service | None = None
    telemetry: Telemetry | None = None
    loading: asyncio.Task[None] | None = None
    has_place: bool = False
    draining: bool = False
    waiting: int = 0
    pins: int = 0
    entering: int = 0
    used_s: float = 0.0
    unloading: asyncio.TimerHandle | None = None

    def hold(self, service: Service) -> None:
        """The model is in memory: ``service``, whose work is counted from now on."""
        self.telemetry = Telemetry(service.engine, service.model)
        service.answered = self.telemetry.answered
        self.service = service

    def let_go(self) -> Service | None:
        """The model is not in memory any more; returns what was."""
        service, self.service, self.telemetry = self.service, None, None
        return service

    @property
    def max_model_len(self) -> int:
        """Longest sequence in tokens, as the engine says once it is there."""
        return self.service.engine.max_model_len if self.service else self.model.max_model_len

    @property
    def state(self) -> str:
        """What has become of the model, in a word."""
        if self.draining:
            return "draining"
        return "loaded" if self.service else "loading" if self.loading else "unloaded"


class Entering:
    """A slot's engine for a request that has a place in the queue, which it gives up when it gets there."""

    def __init__(self, engine: Engine, slot: Slot) -> None:
        self._engine = engine
        self._slot: Slot | None = slot
        slot.entering += 1

    def submit(self, request: GenerationRequest) -> AsyncIterator[TokenEvent]:
        self.entered()
        return self._engine.submit(request)

    def entered(self) -> None:
        """The place is not needed any more; nothing happens the second time."""
        if self._slot is not None:
            self._slot.entering -= 1
            self._slot = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)
