"""``/v1/responses``: create, look up, delete, and count what a response would read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
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
from simserve.server.responses_api.items import page, told_input, with_references
from simserve.server.responses_api.objects import Head, answer_messages, finished
from simserve.server.responses_api.request import ResponsesRequest, refuse
from simserve.server.responses_api.store import Store, Stored
from simserve.server.service import Service
from simserve.server.streaming import SSE_HEADERS
from simserve.server.streams import Ended, check_not_given_up, longest_choices, opened

Json = dict[str, Any]


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
            web.post("/v1/responses/input_tokens", self.input_tokens),
            web.get("/v1/responses/{id}", self.look_up),
            web.delete("/v1/responses/{id}", self.delete),
            web.get("/v1/responses/{id}/input_items", self.input_items),
            web.post("/v1/responses/{id}/cancel", self.cancel),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/responses``: an answer in the form of OpenAI's Responses API"""
        streamed = {"stream": self._limits.rules.streaming_default}
        body = await read_body(request, ResponsesRequest, refuse, streamed)
        body, earlier, chat = await self._understood(request, body)
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

    async def _understood(
        self, request: web.Request, body: ResponsesRequest
    ) -> tuple[ResponsesRequest, Sequence[Json], ChatRequest]:
        """The body with what it refers to in its place, the messages before it, and the chat that all amounts to."""
        body = body.model_copy(update={"input": with_references(body.input, self._store.item)})
        previous = body.previous_response_id
        earlier = self._store.get(previous, "previous_response_id").messages if previous else ()
        return body, earlier, await read_body(request, ChatRequest, self._models.refuse, given=body.chat(earlier))

    async def input_tokens(self, request: web.Request) -> web.Response:
        """``POST /v1/responses/input_tokens``: how many tokens it would read, as ``usage`` counts them"""
        body, _, chat = await self._understood(request, await read_body(request, ResponsesRequest, refuse))
        async with self._models.use(body.model) as service:
            tokens, _ = await service.planner.chat_prompt(chat)
            return _json({"object": "response.input_tokens", "input_tokens": len(tokens)})

    async def input_items(self, request: web.Request) -> web.Response:
        """``GET /v1/responses/{id}/input_items``: what was asked, item by item"""
        return _json(page(self._store.get(request.match_info["id"]).asked, request.query))

    async def cancel(self, request: web.Request) -> web.Response:
        """``POST /v1/responses/{id}/cancel``: 400, since none is made in the background; hang up instead"""
        self._store.get(request.match_info["id"])
        raise ApiError("Only a response that is made in the background can be cancelled, and this one is not.")

    async def look_up(self, request: web.Request) -> web.Response:
        """``GET /v1/responses/{id}``: one that was given before"""
        stored = self._store.get(request.match_info["id"])
        if request.query.get("stream", "").lower() in ("true", "1"):
            raise ApiError("Only a response that is made in the background can be streamed again.", param="stream")
        return web.Response(body=stored.body, content_type="application/json")

    async def delete(self, request: web.Request) -> web.Response:
        """``DELETE /v1/responses/{id}``: forget it"""
        number = request.match_info["id"]
        self._store.remove(number)
        return _json({"id": number, "object": "response", "deleted": True})

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
            asked = told_input(head.number, head.request.input)
            self._store.put(head.id, Stored(body, asked, [*messages, *answer_messages(merged(pieces))]))


async def _read(choice: Choice, stream: AsyncIterator[TokenEvent]) -> tuple[list[Piece], Ended]:
    pieces, tokens = [], 0
    async for event in stream:
        check_not_given_up(event)
        tokens += event.tokens
        pieces.append(choice.read(event))
    return pieces, Ended.of(choice, tokens, event.timing)


def _json(body: Json) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")
