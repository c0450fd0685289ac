"""``/v1/responses``: create, look up, delete. Responses are remembered in this process, the latest of them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from simserve.engines.base import TokenEvent
from simserve.server.bodies import read_body
from simserve.server.errors import ApiError, as_api_error, error_object
from simserve.server.limits import RequestLimits, taken_deadline
from simserve.server.logs import note
from simserve.server.models import Models
from simserve.server.plans import Choice, Piece, Plan, merged
from simserve.server.protocol import ChatRequest
from simserve.server.request_ids import current_request_id
from simserve.server.responses import timing_headers
from simserve.server.responses_api.events import EventWriter
from simserve.server.responses_api.objects import Head, answer_messages, finished
from simserve.server.responses_api.request import ResponsesRequest
from simserve.server.service import Service
from simserve.server.streaming import SSE_HEADERS
from simserve.server.streams import Ended, check_not_given_up, longest_choices, opened

Json = dict[str, Any]

MAX_STORED = 1_000
MAX_STORED_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Stored:
    """A response, and the conversation up to it."""

    body: bytes
    messages: list[Json]
    size_bytes: int


class Store:
    """The latest responses, for those who go on from one."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, Stored] = OrderedDict()
        self._bytes = 0

    def put(self, number: str, body: bytes, messages: list[Json]) -> None:
        """Remember a response; the oldest are forgotten where there are too many."""
        stored = Stored(body, messages, len(body) + len(orjson.dumps(messages)))
        self._by_id[number] = stored
        self._bytes += stored.size_bytes
        while len(self._by_id) > MAX_STORED or self._bytes > MAX_STORED_BYTES:
            _, oldest = self._by_id.popitem(last=False)
            self._bytes -= oldest.size_bytes

    def get(self, number: str, param: str | None = None) -> Stored:
        """Raises :class:`ApiError` (404) for one that is not there, or not any more."""
        stored = self._by_id.get(number)
        if stored is None:
            message = f"There is no response {number!r} here; this server forgets old ones, and all when it ends."
            raise ApiError(message, status=404, param=param, code="response_not_found")
        return stored

    def remove(self, number: str) -> None:
        """As :meth:`get`."""
        self._bytes -= self.get(number).size_bytes
        del self._by_id[number]


class ResponsesRoutes:
    """The endpoints over ``models``; ``limits`` are asked before the engine."""

    def __init__(self, models: Models, limits: RequestLimits) -> None:
        self._models = models
        self._limits = limits
        self._store = Store()

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        return [
            web.post("/v1/responses", self.create),
            web.get("/v1/responses/{id}", self.look_up),
            web.delete("/v1/responses/{id}", self.delete),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/responses``: an answer in the form of OpenAI's Responses API"""
        body = await read_body(request, ResponsesRequest, defaults={"stream": self._limits.rules.streaming_default})
        previous = body.previous_response_id
        earlier = self._store.get(previous, "previous_response_id").messages if previous else []
        chat = await read_body(request, ChatRequest, self._models.refuse, given=body.chat(earlier))
        async with self._models.use(body.model) as service:
            head = Head(current_request_id().replace("-", ""), service.model, body)
            plan = await service.planner.chat(chat, head.id)
            longest = max(len(choice.sequence.prompt_token_ids) for choice in plan.choices)
            await self._limits.admit(request, longest, plan.prompt_tokens + plan.output_tokens)
            note(request, model=service.model, stream=body.stream, prompt_tokens=plan.prompt_tokens)
            async with opened(service.engine, [plan.choices[0].sequence]) as streams:
                if body.stream:
                    response, pieces, ended = await self._streamed(request, head, plan, streams[0])
                else:
                    pieces, ended = await _read(plan.choices[0], streams[0])
                    content = orjson.dumps(finished(head, plan, pieces, ended))
                    headers = timing_headers([ended])
                    response = web.Response(body=content, content_type="application/json", headers=headers)
            await self._done(request, service, head, plan, pieces, ended, [*earlier, *body.messages()])
            return response

    async def look_up(self, request: web.Request) -> web.Response:
        """``GET /v1/responses/{id}``: one that was given before"""
        stored = self._store.get(request.match_info["id"])
        return web.Response(body=stored.body, content_type="application/json")

    async def delete(self, request: web.Request) -> web.Response:
        """``DELETE /v1/responses/{id}``: forget it"""
        number = request.match_info["id"]
        self._store.remove(number)
        body = orjson.dumps({"id": number, "object": "response", "deleted": True})
        return web.Response(body=body, content_type="application/json")

    async def _streamed(
        self, request: web.Request, head: Head, plan: Plan, stream: AsyncIterator[TokenEvent]
    ) -> tuple[web.StreamResponse, list[Piece], Ended | None]:
        """Write the events; what fails after the first byte is an event of its own."""
        response = web.StreamResponse(headers=SSE_HEADERS)
        await response.prepare(request)
        writer, choice, tokens = EventWriter(head), plan.choices[0], 0
        pieces: list[Piece] = []
        ended: Ended | None = None
        try:
            async with asyncio.timeout_at(taken_deadline(request)):
                pending = writer.opening()
                async for event in stream:
                    check_not_given_up(event)
                    tokens += event.tokens
                    pieces.append(choice.read(event))
                    frames, pending = pending + writer.piece(pieces[-1]), b""
                    if frames:
                        await response.write(frames)
            ended = Ended.of(choice, tokens, event.timing)
            whole = finished(head, plan, pieces, ended)
            await response.write(writer.closing(whole, whole["status"]))
        except ConnectionError:
            raise
        except Exception as error:
            await response.write(writer.failure(error_object(as_api_error(error))))
        await response.write_eof()
        return response, pieces, ended

    async def _done(
        self,
        request: web.Request,
        service: Service,
        head: Head,
        plan: Plan,
        pieces: list[Piece],
        ended: Ended | None,
        messages: list[Json],
    ) -> None:
        if ended is None:
            return
        service.answered(*longest_choices(plan, [ended]))
        note(request, output_tokens=ended.tokens)
        await self._limits.charging.give_back(request, plan.output_tokens - ended.tokens)
        if head.request.store:
            body = orjson.dumps(finished(head, plan, pieces, ended) | {"completed_at": int(time.time())})
            self._store.put(head.id, body, [*messages, *answer_messages(merged(pieces))])


async def _read(choice: Choice, stream: AsyncIterator[TokenEvent]) -> tuple[list[Piece], Ended]:
    pieces, tokens = [], 0
    async for event in stream:
        check_not_given_up(event)
        tokens += event.tokens
        pieces.append(choice.read(event))
    return pieces, Ended.of(choice, tokens, event.timing)
