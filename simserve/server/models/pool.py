"""Several models behind one endpoint: loaded when they are asked for, unloaded when their place is needed.

Everything happens on the event loop. A request pins its model from when it begins to wait for it to its own end, and
only a model without pins is unloaded: nobody is cut off. Where every loaded model has pins, the one not used for
longest is drained: who asks for it from then on waits until it has been unloaded and loaded again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from simserve.engines.base import EngineStatus
from simserve.engines.controls import HasAdapters
from simserve.errors import SimServeError
from simserve.server.errors import ApiError, model_not_found, shutting_down, try_again
from simserve.server.load_header import load_of
from simserve.server.models.adapters import Adapter, Adapters, LoadAdapter
from simserve.server.models.base import Json
from simserve.server.models.loadable import Loadable
from simserve.server.models.signal import Signal
from simserve.server.models.slot import Entering, Slot
from simserve.server.responses import model_card
from simserve.server.service import Service
from simserve.server.status import status_body, total
from simserve.server.telemetry import Telemetry
from simserve.server.unsupported import SIMULATED, refuse_unsupported

log = logging.getLogger("simserve.server")

RETRY_AFTER_S = 5
"""What a client is told that has waited in vain for its model."""

QUEUE_RETRY_S = 1
"""What a client is told that found a full queue."""


@dataclass(frozen=True)
class PoolLimits:
    """How many models are in memory at most, how long an unused one stays; how long requests wait, and how many."""

    max_loaded: int | None = None
    unload_timeout_s: float | None = None
    load_timeout_s: float = 300.0
    max_waiting_requests: int | None = None


class ModelPool:
    """See :class:`simserve.server.models.base.Models`; the default one is first, ``preload`` are there from the start.

    Raises :class:`ApiError` (404) for a model in ``preload`` that there is not.
    """

    def __init__(
        self, models: Sequence[Loadable], preload: Sequence[str] = (), limits: PoolLimits = PoolLimits()
    ) -> None:
        self.adapters = Adapters()
        self.slots = [Slot(model) for model in models]
        self._by_name = {name: slot for slot in self.slots for name in slot.model.names}
        self._preload = [self._slot(name)[0] for name in preload]
        self._limits = limits
        self._created_s = int(time.time())
        self._making_room = asyncio.Lock()
        self._changed = Signal()
        self._background: set[asyncio.Task[None]] = set()

    @classmethod
    def of(cls, service: Service, max_waiting_requests: int | None = None) -> ModelPool:
        """A pool of one model, which is there from the start."""

        async def load() -> Service:
            return service

        names, longest = tuple(service.model_names), service.engine.max_model_len
        refused = service.planner.unsupported
        only = Loadable(names, service.model_root, longest, load, service.over, unsupported=refused)
        return cls([only], [only.name], PoolLimits(max_waiting_requests=max_waiting_requests))

    @property
    def default(self) -> str:
        """The name of the model that answers where a request names none."""
        return self.slots[0].model.name

    async def start(self) -> None:
        """Load what is there from the start; no simulated time passes for it."""
        for slot in self._preload:
            service = await slot.model.load()
            slot.has_place = True
            await service.engine.start()
            slot.hold(service)
            for adapter in self.adapters.all():
                if self._by_name[adapter.base] is slot and isinstance(service.engine, HasAdapters):
                    service.engine.load_adapter(adapter.name, adapter.number, in_advance=True)
            self._begin_to_idle(slot)

    async def stop(self) -> None:
        """Stop all engines, which end their streams."""
        tasks = [*self._background, *(slot.loading for slot in self.slots if slot.loading)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for slot in self.slots:
            if slot.unloading:
                slot.unloading.cancel()
            if slot.service:
                await slot.service.engine.stop()

    def refuse(self, fields: dict[str, Any]) -> None:
        """Raise :class:`ApiError` for a body that names a model that there is not (404), or asks of it what its engine
        cannot do (400); no name means the default one."""
        name = fields.get("model")
        slot, _ = self._slot(name if isinstance(name, str) else self.default)
        refuse_unsupported(fields, slot.service.planner.unsupported if slot.service else slot.model.unsupported)

    @asynccontextmanager
    async def use(self, name: str | None) -> AsyncIterator[Service]:
        slot, adapter = self._slot(self.default if name is None else name)
        service = await self._pinned(slot)
        try:
            with self._room_in_queue(slot, service) as service:
                yield adapter.over(service) if adapter else service
        finally:
            self._unpin(slot)

    async def cards(self) -> list[Json]:
        cards = [
            model_card(name, slot.model.root, self._created_s, slot.max_model_len)
            for slot in self.slots
            for name in slot.model.names
        ]
        lengths = {slot.model.name: slot.max_model_len for slot in self.slots}
        return cards + [
            model_card(one.name, one.path, one.created_s, lengths[one.base], parent=one.base)
            for one in self.adapters.all()
        ]

    async def report(self) -> Json:
        return status_body(self.slots)

    async def engine_load(self, name: str | None) -> dict[str, float]:
        slot, _ = self._slot(self.default if name is None else name)
        return {} if slot.service is None else load_of(slot.service.engine.status())

    async def states(self) -> list[Json]:
        return [{"model": slot.model.name, "state": slot.state, "requests": slot.pins} for slot in self.slots]

    async def load(self, name: str) -> None:
        async with self.use(name):
            pass

    async def unload(self, name: str) -> None:
        slot, _ = self._slot(name)
        await self._changed.until(lambda: not slot.loading)
        if slot.service and not slot.draining:
            await self._drain(slot)

    @property
    def telemetry(self) -> list[Telemetry]:
        """What is known of the work of each engine in memory."""
        return [slot.telemetry for slot in self.slots if slot.telemetry]

    def in_memory(self, name: str | None) -> Telemetry:
        """The model of that name, or the default one, to be looked at: it is neither loaded for it nor kept.

        Raises :class:`ApiError`: 404 if there is no such model, 409 if it is not in memory.
        """
        slot, _ = self._slot(self.default if name is None else name)
        if slot.telemetry is None or slot.draining:
            raise ApiError(
                f"The model `{slot.model.name}` is not in memory; ask it something first.", status=409, param="model"
            )
        return slot.telemetry

    async def load_adapter(self, request: LoadAdapter) -> Adapter:
        adapter = self.name_adapter(request)
        slot = self._by_name[adapter.base]
        if slot.service is not None and isinstance(slot.service.engine, HasAdapters):
            slot.service.engine.load_adapter(adapter.name, adapter.number)
        return adapter

    def name_adapter(self, request: LoadAdapter) -> Adapter:
        """Let requests ask for an adapter, which is loaded with the first that does. Raises :class:`ApiError`."""
        if request.lora_name in self._by_name:
            raise ApiError(
                f"The lora adapter name '{request.lora_name}' conflicts with a served base model.", param="lora_name"
            )
        base = self._by_name.get(request.base_model_name or self.default)
        if base is None:
            raise model_not_found(request.base_model_name or "")
        if base.model.unsupported is not SIMULATED:
            engine = base.model.unsupported.engine
            raise ApiError(f"{base.model.name} is run by the {engine} engine, which has no LoRA adapters.")
        return self.adapters.add(request, base.model.name)

    async def unload_adapter(self, name: str) -> None:
        self.adapters.remove(name)

    def status(self) -> EngineStatus:
        """All loaded engines together; memory is counted in blocks of one byte."""
        return total([telemetry.engine.status() for telemetry in self.telemetry])

    def _slot(self, name: str) -> tuple[Slot, Adapter | None]:
        adapter = self.adapters.get(name)
        slot = self._by_name.get(adapter.base if adapter else name)
        if slot is None:
            raise model_not_found(name)
        return slot, adapter

    async def _pinned(self, slot: Slot) -> Service:
        """The model in memory, with a pin on it."""
        if slot.service is not None and not slot.draining:
            self._pin(slot)
            return slot.service
        most = self._limits.max_waiting_requests
        if most is not None and slot.waiting >= most:
            raise try_again(f"Too many requests wait for the model `{slot.model.name}`; try again.", RETRY_AFTER_S)
        slot.waiting += 1
        try:
            async with asyncio.timeout(self._limits.load_timeout_s):
                await self._changed.until(lambda: not slot.draining)
                self._pin(slot)
                try:
                    return await self._loaded(slot)
                except BaseException:
                    self._unpin(slot)
                    raise
        except TimeoutError:
            raise try_again(f"The model `{slot.model.name}` is not loaded yet; try again.", RETRY_AFTER_S) from None
        finally:
            slot.waiting -= 1

    @contextmanager
    def _room_in_queue(self, slot: Slot, service: Service) -> Iterator[Service]:
        """Take a place in the engine's queue; raises 503 if there is none.

        The place is the request's until it is in the queue itself: requests that are still being planned count too.
        """
        most = self._limits.max_waiting_requests
        if most is None:
            yield service
            return
        if service.engine.status().waiting_requests + slot.entering >= most:
            raise try_again("The engine is currently busy: its queue is full. Try again in a moment.", QUEUE_RETRY_S)
        entering = Entering(service.engine, slot)
        try:
            yield service.over(entering)
        finally:
            entering.entered()

    def _pin(self, slot: Slot) -> None:
        slot.pins += 1
        if slot.unloading:
            slot.unloading.cancel()
            slot.unloading = None

    def _unpin(self, slot: Slot) -> None:
        slot.pins -= 1
        slot.used_s = asyncio.get_running_loop().time()
        self._begin_to_idle(slot)
        self._changed.tell()

    def _begin_to_idle(self, slot: Slot) -> None:
        timeout_s = self._limits.unload_timeout_s
        if timeout_s is not None and slot.pins == 0 and slot.service and not slot.draining:
            slot.unloading = asyncio.get_running_loop().call_later(timeout_s, self._unload_unused, slot)

    def _unload_unused(self, slot: Slot) -> None:
        slot.unloading = None
        slot.draining = True  # at once: who comes before the task begins must wait
        task = asyncio.create_task(self._drain(slot))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _loaded(self, slot: Slot) -> Service:
        """The service of a pinned slot, loaded if it must be; who stops waiting does not stop the load."""
        if slot.service is None:
            if slot.loading is None:
                slot.loading = asyncio.create_task(self._load(slot))
                slot.loading.add_done_callback(_retrieve)
            load = slot.loading
            try:
                await asyncio.shield(load)
            except asyncio.CancelledError:
                if load.cancelled():
                    raise shutting_down() from None
                raise
        assert slot.service is not None
        return slot.service

    async def _load(self, slot: Slot) -> None:
        name = slot.model.name
        try:
            async with self._making_room:
                await self._make_room()
                slot.has_place = True
            takes = f", which takes {slot.model.load_s:.1f} s" if slot.model.load_s else ""
            log.info("Loading %s%s", name, takes)
            loop = asyncio.get_running_loop()
            ready_s = loop.time() + slot.model.load_s
            service = await slot.model.load()
            await asyncio.sleep(ready_s - loop.time())
            await service.engine.start()
            slot.hold(service)
            log.info("Loaded %s", name)
        except SimServeError as error:
            log.error("%s cannot be loaded: %s", name, error)
            raise ApiError(f"The model `{name}` cannot be loaded: {error}", status=500) from None
        finally:
            slot.has_place = slot.service is not None
            slot.loading = None
            self._begin_to_idle(slot)
            self._changed.tell()

    async def _make_room(self) -> None:
        while not self._has_room():
            # Places that are being loaded into, or drained already, come free by themselves or become victims.
            await self._changed.until(lambda: self._has_room() or self._victim() is not None)
            victim = self._victim()
            if victim is not None and not self._has_room():
                await self._drain(victim)

    def _has_room(self) -> bool:
        most = self._limits.max_loaded
        return most is None or sum(slot.has_place for slot in self.slots) < most

    def _victim(self) -> Slot | None:
        """The loaded model to unload next: without pins if there is one, and not used for longest."""
        loaded = [slot for slot in self.slots if slot.service and not slot.draining]
        return min(loaded, key=lambda slot: (slot.pins > 0, slot.used_s), default=None)

    async def _drain(self, slot: Slot) -> None:
        """Let the requests of a loaded model end, keep new ones out, and unload it."""
        slot.draining = True
        try:
            await self._changed.until(lambda: slot.pins == 0)
            service = slot.let_go()
            if service:
                await service.engine.stop()
                gc.unfreeze()  # it may have been there when the server began to listen, and is garbage now
            slot.has_place = False
            log.info("Unloaded %s", slot.model.name)
        finally:
            slot.draining = False
            self._changed.tell()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Take note of a failure that everybody may have stopped waiting for; it has been logged."""
    if not task.cancelled():
        task.exception()
