"""The parent's end: engines, limits and settings, for the workers that ask."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from simserve.server.errors import as_api_error
from simserve.server.failures import Failures
from simserve.server.limits import Rates
from simserve.server.metrics import HttpCounts
from simserve.server.models import LoadAdapter, ModelPool
from simserve.server.responses_api.store import KeptHere
from simserve.server.service import Service
from simserve.server.settings import FailuresSection
from simserve.server.workers.channel import Channel, Message
from simserve.server.workers.codec import caller_from, error_body, request_from

HTTP_COUNTS_S = 1.0
"""How long workers may take to say what they have counted."""


class Host:
    """What all workers share. ``ready`` counts the workers that listen."""

    def __init__(self, models: ModelPool, failures: Failures) -> None:
        self.models = models
        self.ready = 0
        self._rates = Rates()
        self._failures = failures
        self._sessions: set[Session] = set()
        self._joined = 0
        self._http_of_the_gone = HttpCounts()
        self.changed = asyncio.Condition()
        self.kept = KeptHere()
        self.kept.on_cancel.append(lambda number: self.say({"op": "cancel_response", "id": number}))
        self.calls: Mapping[str, Callable[..., Awaitable[Any]]] = {
            "cards": models.cards,
            "report": models.report,
            "states": models.states,
            "engine_load": models.engine_load,
            "load": models.load,
            "unload": models.unload,
            "load_adapter": self._load_adapter,
            "unload_adapter": self._unload_adapter,
            "take": self._take,
            "give_back": self._give_back,
            "change_failures": self._change_failures,
        }

    def connection(self) -> Channel:
        """One more worker; a protocol factory."""
        self._joined += 1
        session = Session(self, self._joined)
        self._sessions.add(session)
        return session.channel

    def say(self, message: Message) -> None:
        """Tell all workers."""
        for session in self._sessions:
            session.channel.send(message)

    def what_may_change(self) -> list[Message]:
        """What a new worker has to know beside the settings it was started with."""
        return [self._adapters(), {"op": "failures", "settings": self._failures.settings.model_dump()}]

    async def joined(self) -> None:
        """One more worker listens."""
        async with self.changed:
            self.ready += 1
            self.changed.notify_all()

    async def left(self, session: Session, *, was_ready: bool) -> None:
        """A worker is gone."""
        self._sessions.discard(session)
        session.http.generating = 0
        self._http_of_the_gone.include(session.http)
        async with self.changed:
            self.ready -= was_ready
            self.changed.notify_all()
        for number in session.responses:
            await self.kept.lose(number)

    async def http_counts(self) -> HttpCounts:
        """What all workers have counted, those that are gone included."""
        await asyncio.gather(*(session.count_http() for session in self._sessions))
        total = HttpCounts()
        for counts in (self._http_of_the_gone, *(session.http for session in self._sessions)):
            total.include(counts)
        return total

    def _adapters(self) -> Message:
        return {"op": "adapters", "names": [adapter.name for adapter in self.models.adapters.all()]}

    async def _load_adapter(self, body: Message) -> Any:
        adapter = await self.models.load_adapter(LoadAdapter(**body))
        self.say(self._adapters())
        return adapter

    async def _unload_adapter(self, name: str) -> None:
        await self.models.unload_adapter(name)
        self.say(self._adapters())

    async def _take(self, caller: Message, kind: Any, count: int) -> Any:
        return await self._rates.take(caller_from(caller), kind, count)

    async def _give_back(self, caller: Message, tokens: int) -> None:
        await self._rates.give_back(caller_from(caller), tokens)

    async def _change_failures(self, settings: Message) -> None:
        await self._failures.change(FailuresSection(**settings))
        self.say({"op": "failures", "settings": settings})


class Session:
    """One worker: its uses of models and its streams, all of which end when it does."""

    def __init__(self, host: Host, number: int) -> None:
        self.channel = Channel(self._on_message, self._on_closed)
        self._host = host
        self._number = number
        self._ready = False
        self._uses: dict[int, tuple[asyncio.Task[None], asyncio.Event]] = {}
        self._services: dict[int, Service] = {}
        self._streams: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.http = HttpCounts()
        """What the worker had counted when it was asked last."""
        self.responses: set[str] = set()
        """In the background, that the worker works on."""
        self._asked_for_http: deque[asyncio.Future[None]] = deque()

    async def count_http(self) -> None:
        """Ask the worker what it has counted; one that does not answer soon stays at what it has said before."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked_for_http.append(told)
        self.channel.send({"op": "count_http"})
        await asyncio.wait((told,), timeout=HTTP_COUNTS_S)

    def _on_message(self, message: Message) -> None:
        match message["op"]:
            case "submit":
                self._streams[message["id"]] = self._spawn(self._stream(message))
            case "close":
                stream = self._streams.get(message["id"])
                if stream:
                    stream.cancel()
            case "use":
                released = asyncio.Event()
                self._uses[message["id"]] = (self._spawn(self._use(message, released)), released)
            case "release":
                self._release(message["id"])
            case "answered":
                service = self._services.get(message["use"])
                if service is not None:
                    service.answered(message["choices"], message["longest"])
            case "http":
                self._http_counted(message["counts"])
            case "works":
                self.responses.add(message["id"])
            case "worked":
                self.responses.discard(message["id"])
            case "embed":
                self._spawn(self._answer(message, self._embed(message)))
            case "call":
                self._spawn(self._answer(message, self._host.calls[message["method"]](*message["args"])))
            case "ready":
                for news in self._host.what_may_change():
                    self.channel.send(news)
                self._ready = True
                self._spawn(self._host.joined())

    def _http_counted(self, counts: Message) -> None:
        self.http = HttpCounts.from_body(counts)
        self._asked_for_http.popleft().set_result(None)

    def _on_closed(self) -> None:
        while self._asked_for_http:
            self._asked_for_http.popleft().set_result(None)
        for task in self._tasks:
            task.cancel()
        gone = asyncio.create_task(self._host.left(self, was_ready=self._ready))
        self._tasks = {gone}
        gone.add_done_callback(self._tasks.discard)

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, message: Message, work: Awaitable[Any]) -> None:
        try:
            result = await work
        except Exception as error:
            self.channel.send({"op": "failed", "id": message["id"], "error": error_body(as_api_error(error))})
        else:
            self.channel.send({"op": "done", "id": message["id"], "result": result})

    async def _embed(self, message: Message) -> Any:
        engine = self._services[message["use"]].engine
        return await engine.embed(message["prompts"], message["pooling"])  # type: ignore[attr-defined]

    async def _use(self, message: Message, released: asyncio.Event) -> None:
        """Keep a model in memory until the worker does not need it any more."""
        number = message["id"]
        try:
            async with self._host.models.use(message["model"]) as service:
                self._services[number] = service
                adapter = self._host.models.adapters.get(service.model)
                facts = {
                    "model": adapter.base if adapter else service.model,
                    "adapter": adapter,
                    "max_model_len": service.engine.max_model_len,
                    "generation_defaults": getattr(service.engine, "generation_defaults", {}),
                    "may_refuse": getattr(service.engine, "may_refuse", False),
                }
                self.channel.send({"op": "done", "id": number, "result": facts})
                await released.wait()
        except Exception as error:
            self.channel.send({"op": "failed", "id": number, "error": error_body(as_api_error(error))})
        finally:
            self._services.pop(number, None)
            self._uses.pop(number, None)

    def _release(self, number: int) -> None:
        task, released = self._uses.get(number, (None, None))
        if number in self._services and released:
            released.set()
        elif task:
            task.cancel()  # it is still waiting for its model

    async def _stream(self, message: Message) -> None:
        """Run one sequence and pass its tokens on."""
        number = message["id"]
        try:
            service = self._services[message["use"]]
            request = request_from(message["request"])
            # Clients may give the same id to requests of several workers.
            stream = service.engine.submit(replace(request, request_id=f"w{self._number}-{request.request_id}"))
            try:
                if getattr(service.engine, "may_refuse", False):
                    self.channel.send({"op": "admitted", "id": number})
                async for event in stream:
                    self.channel.send({"op": "event", "id": number, "event": event})
            finally:
                close = getattr(stream, "aclose", None)
                if close:
                    await close()
        except Exception as error:
            self.channel.send({"op": "failed", "id": number, "error": error_body(as_api_error(error))})
        finally:
            self._streams.pop(number, None)
