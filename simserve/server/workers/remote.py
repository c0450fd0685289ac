"""A worker's end: models, limits and settings that the parent has, as if they were here."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from simserve.engines.base import GenerationRequest, TokenEvent
from simserve.engines.streams import TokenStream
from simserve.server.auth import Caller
from simserve.server.errors import ApiError, shutting_down
from simserve.server.failures import Failures
from simserve.server.limits.rates import Kind, Verdict
from simserve.server.metrics import HttpMetrics
from simserve.server.models import Adapter, Loadable, LoadAdapter
from simserve.server.service import Service
from simserve.server.settings import FailuresSection
from simserve.server.streams import AnswersLater
from simserve.server.unsupported import SIMULATED, refuse_unsupported
from simserve.server.workers.channel import Channel, Message
from simserve.server.workers.codec import adapter_from, caller_body, error_from, event_from, verdict_from

Json = dict[str, Any]


class Link:
    """The connection to the parent.

    ``draining`` has the grace, once the worker is to end when its requests have; ``stopped`` says whether the parent is
    gone, once the worker is to end now.
    """

    def __init__(self) -> None:
        self.channel = Channel(self._on_message, self._on_closed)
        self.draining: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.stopped: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.adapters: frozenset[str] = frozenset()
        self.failures: Failures | None = None
        self.http: HttpMetrics | None = None
        self.on_cancel: Callable[[str], None] | None = None
        """Is told of each response that is to be cancelled."""
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._streams: dict[int, RemoteStream] = {}

    async def call(self, method: str, *args: object) -> Any:
        """Have the parent do something; raises the :class:`ApiError` that it raises."""
        return await self.ask({"op": "call", "method": method, "args": args})

    async def ask(self, message: Message, number: int | None = None) -> Any:
        """Send a message that is answered, and wait for what comes back; raises :class:`ApiError`."""
        number = self.number() if number is None else number
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self.channel.send({**message, "id": number})
        try:
            return await answer
        finally:
            self._answers.pop(number, None)

    def number(self) -> int:
        """A number that nothing else on this connection has."""
        return next(self._numbers)

    def submit(self, use: int, request: GenerationRequest) -> RemoteStream:
        """Have the parent's engine run one sequence."""
        number = self.number()
        stream = self._streams[number] = RemoteStream(lambda: self._close(number))
        self.channel.send({"op": "submit", "id": number, "use": use, "request": request})
        return stream

    def drain(self, grace_s: float) -> None:
        """End as if the parent had said so."""
        if not self.draining.done():
            self.draining.set_result(grace_s)

    def abort(self) -> None:
        """End every stream with reason "abort", and every wait."""
        for stream in self._streams.values():
            stream.finish("abort", 0.0)
        self._streams.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(shutting_down())

    def _close(self, number: int) -> None:
        if self._streams.pop(number, None):
            self.channel.send({"op": "close", "id": number})

    def _on_message(self, message: Message) -> None:
        match message["op"]:
            case "admitted":
                self._on_admitted(message["id"])
            case "event":
                self._on_event(message["id"], message["event"])
            case "done":
                self._settle(message["id"], message["result"])
            case "failed":
                self._fail(message["id"], error_from(message["error"]))
            case "adapters":
                self.adapters = frozenset(message["names"])
            case "failures":
                if self.failures:
                    self.failures.use(FailuresSection(**message["settings"]))
            case "count_http":
                self.channel.send({"op": "http", "counts": self.http.counts.body() if self.http else None})
            case "cancel_response":
                if self.on_cancel:
                    self.on_cancel(message["id"])
            case "drain":
                self.drain(message["grace_s"])
            case "stop":
                self._stop(lost=False)

    def _on_event(self, number: int, body: Json) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return  # its client is gone, and the parent does not know yet
        event = event_from(body)
        if event.finish_reason is not None:
            del self._streams[number]
        stream.take(event)

    def _on_admitted(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.known.set()

    def _settle(self, number: int, result: Any) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(result)

    def _fail(self, number: int, error: ApiError) -> None:
        stream, answer = self._streams.pop(number, None), self._answers.get(number)
        if stream is not None:
            stream.fail(error)
        elif answer is not None and not answer.done():
            answer.set_exception(error)

    def _on_closed(self) -> None:
        self.abort()
        self._stop(lost=True)

    def _stop(self, *, lost: bool) -> None:
        if not self.stopped.done():
            self.stopped.set_result(lost)


class RemoteStream(TokenStream):
    """The tokens of a sequence that runs in the parent; it is ``known`` once its engine has taken or refused it."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        super().__init__(on_close)
        self.known = asyncio.Event()

    def fail(self, error: Exception) -> None:
        super().fail(error)
        self.known.set()

    def finish(self, *args: Any, **more: Any) -> None:
        super().finish(*args, **more)
        self.known.set()

    async def admitted(self) -> None:
        """Wait until it is known; raises what the engine refuses it with."""
        await self.known.wait()
        if self._failure is not None:
            raise self._failure

    def take(self, event: TokenEvent) -> None:
        """Tokens have come."""
        if event.token_ids:
            self.push(event.time_s, event.token_ids, event.text, event.logprobs)
        else:
            for _ in range(event.tokens):
                self.push(event.time_s)
        if event.finish_reason is not None:
            text = "" if event.token_ids else event.text
            self.finish(
                event.finish_reason,
                event.time_s,
                event.timing,
                text=text,
                stop_reason=event.stop_reason,
                error=event.error,
            )


class RemoteEngine:
    """One use of a model whose engine runs in the parent; see :class:`simserve.engines.base.Engine`."""

    def __init__(self, link: Link, use: int, facts: Json) -> None:
        self._link = link
        self._use = use
        self.max_model_len: int = facts["max_model_len"]
        self.generation_defaults: Mapping[str, float] = facts["generation_defaults"]

    def submit(self, request: GenerationRequest) -> AsyncIterator[TokenEvent]:
        return self._link.submit(self._use, request)

    async def embed(self, prompts: Sequence[Sequence[int]], pooling: str = "last") -> list[list[float]]:
        """The vectors that a torch engine itself makes of ``prompts``."""
        vectors: list[list[float]] = await self._link.ask(
            {"op": "embed", "use": self._use, "prompts": prompts, "pooling": pooling}
        )
        return vectors


class RefusingEngine(RemoteEngine, AnswersLater):
    """One that may have enough to do, and decides that when a sequence comes."""

    async def admitted(self, streams: Sequence[AsyncIterator[TokenEvent]]) -> None:
        for stream in streams:
            assert isinstance(stream, RemoteStream)
            await stream.admitted()


class RemoteModels:
    """See :class:`simserve.server.models.base.Models`: it is said here and computed there."""

    def __init__(self, models: Iterable[Loadable], link: Link) -> None:
        self._link = link
        self._models = {model.name: model for model in models}
        self._by_name = {name: model for model in self._models.values() for name in model.names}
        self._default = next(iter(self._models.values()))
        self._services: dict[tuple[str, int], asyncio.Task[Service]] = {}

    async def start(self) -> None:
        """The parent has started everything."""

    async def stop(self) -> None:
        self._link.abort()

    def refuse(self, fields: Json) -> None:
        name = fields.get("model")
        model = self._by_name.get(name) if isinstance(name, str) else self._default
        if model is not None:
            model.refuse(fields)
        elif name in self._link.adapters:
            refuse_unsupported(fields, SIMULATED)  # no other engine has adapters

    @asynccontextmanager
    async def use(self, name: str | None) -> AsyncIterator[Service]:
        number = self._link.number()
        try:
            facts = await self._link.ask({"op": "use", "model": name}, number)
            service = await self._service(facts)
            made = RefusingEngine if facts["may_refuse"] else RemoteEngine
            service = service.over(made(self._link, number, facts))  # type: ignore[arg-type]
            service = replace(service, answered=partial(self._answered, number))
            adapter = facts["adapter"]
            yield adapter_from(adapter).over(service) if adapter else service
        finally:
            self._link.channel.send({"op": "release", "id": number})

    def _answered(self, use: int, choices: int, longest: Sequence[int]) -> None:
        self._link.channel.send({"op": "answered", "use": use, "choices": choices, "longest": longest})

    async def cards(self) -> list[Json]:
        cards: list[Json] = await self._link.call("cards")
        return cards

    async def report(self) -> Json:
        report: Json = await self._link.call("report")
        return report

    async def engine_load(self, name: str | None) -> dict[str, float]:
        load: dict[str, float] = await self._link.call("engine_load", name)
        return load

    async def states(self) -> list[Json]:
        states: list[Json] = await self._link.call("states")
        return states

    async def load(self, name: str) -> None:
        await self._link.call("load", name)

    async def unload(self, name: str) -> None:
        await self._link.call("unload", name)

    async def load_adapter(self, request: LoadAdapter) -> Adapter:
        return adapter_from(await self._link.call("load_adapter", request.model_dump()))

    async def unload_adapter(self, name: str) -> None:
        await self._link.call("unload_adapter", name)

    async def _service(self, facts: Json) -> Service:
        """What speaks for a model, made once: reading a tokenizer takes a while."""
        key = facts["model"], facts["max_model_len"]
        if key not in self._services:
            engine = RemoteEngine(self._link, -1, facts)
            made = asyncio.to_thread(self._models[key[0]].over, engine)  # type: ignore[arg-type]
            self._services[key] = asyncio.create_task(made)
        return await asyncio.shield(self._services[key])


class RemoteRates:
    """Counts at the parent's; see :class:`simserve.server.limits.charging.Counter`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def take(self, caller: Caller, kind: Kind, count: int) -> Verdict:
        if caller.requests_per_minute is None and caller.tokens_per_minute is None:
            return Verdict(granted=True, headers={})
        return verdict_from(await self._link.call("take", caller_body(caller), kind, count))

    async def give_back(self, caller: Caller, tokens: int) -> None:
        if caller.tokens_per_minute is not None:
            await self._link.call("give_back", caller_body(caller), tokens)


class RemoteFailures(Failures):
    """Fails here as all workers do; a change goes to all of them by way of the parent."""

    def __init__(self, settings: FailuresSection, link: Link) -> None:
        super().__init__(settings)
        self._link = link
        link.failures = self

    async def change(self, settings: FailuresSection) -> None:
        await self._link.call("change_failures", settings.model_dump())
