"""``/v1/responses``: create, look up, cancel, delete, and count what a response would read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
from aiohttp import web

from simserve.engines.base import TokenEvent
from simserve.engines.streams import TokenStream
from simserve.server.bodies import read_body
from simserve.server.errors import ApiError, as_api_error, error_object
from simserve.server.limits import RequestLimits, taken_deadline
from simserve.server.logs import note
from simserve.server.models import Models
from simserve.server.plans import Choice, Piece, Plan, merged
from simserve.server.protocol import ChatRequest
from simserve.server.request_ids import current_request_id
from simserve.server.responses import timing_headers
from simserve.server.responses_api.background import Background, Begun
from simserve.server.responses_api.events import EventWriter
from simserve.server.responses_api.ids import response_id
from simserve.server.responses_api.items import is_reference, page, referred, told_input
from simserve.server.responses_api.objects import Head, answer_messages, finished, response_object
from simserve.server.responses_api.request import ResponsesRequest, refuse
from simserve.server.responses_api.store import IN_PROGRESS, Store, Stored, item_in, not_found, stored_in
from simserve.server.service import Service
from simserve.server.streaming import SSE_HEADERS
from simserve.server.streams import Ended, check_not_given_up, longest_choices, opened

Json = dict[str, Any]

PREVIOUS = "previous_response_id"

Keep = Callable[[list[Piece], Ended], Awaitable[None]]
"""Counts a response that has ended, and keeps it for later."""


class ResponsesRoutes:
    """The endpoints over ``models``; ``limits`` are asked before the engine, ``store`` has what was answered."""

    def __init__(self, models: Models, limits: RequestLimits, store: Store) -> None:
        self._models = models
        self._limits = limits
        self._store = store
        self._background = Background(store, limits.drain)

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        return [
            web.post("/v1/responses", self.create),
            web.post("/v1/responses/input_tokens", self.input_tokens),
            web.get("/v1/responses/{id}", self.look_up),
            web.delete("/v1/responses/{id}", self.delete),
            web.post("/v1/responses/{id}/cancel", self.cancel),
            web.get("/v1/responses/{id}/input_items", self.input_items),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/responses``: an answer in the form of OpenAI's Responses API"""
        defaults = {"stream": self._limits.rules.streaming_default}
        body, earlier, chat = await self._understood(request, defaults)
        messages = [*earlier, *body.messages()]
        if body.background:
            number = _number()
            begun = await self._background.begin(
                response_id(number), lambda begun: self._behind(request, number, body, chat, messages, begun)
            )
            return _json(begun)
        async with self._planned(request, _number(), body, chat) as (service, head, plan, stream):

            async def keep(pieces: list[Piece], ended: Ended) -> None:
                await self._done(request, service, head, plan, pieces, ended, messages)

            if body.stream:
                return await self._streamed(request, head, plan, stream, keep)
            pieces, ended = await _read(plan.choices[0], stream)
            await keep(pieces, ended)
            return _json(finished(head, plan, pieces, ended), timing_headers([ended]))

    async def input_tokens(self, request: web.Request) -> web.Response:
        """``POST /v1/responses/input_tokens``: how many tokens it would read, as ``usage`` counts them"""
        body, _, chat = await self._understood(request)
        async with self._models.use(body.model) as service:
            tokens, _ = await service.planner.chat_prompt(chat)
            return _json({"object": "response.input_tokens", "input_tokens": len(tokens)})

    async def input_items(self, request: web.Request) -> web.Response:
        """``GET /v1/responses/{id}/input_items``: what was asked, item by item"""
        stored = await stored_in(self._store, request.match_info["id"])
        return _json(page(stored.asked, request.query))

    async def look_up(self, request: web.Request) -> web.Response:
        """``GET /v1/responses/{id}``: one that was given before, or is being made in the background"""
        if request.query.get("stream", "").lower() in ("true", "1"):
            raise ApiError("A response is streamed while it is made, and not again.", param="stream")
        return _json((await stored_in(self._store, request.match_info["id"])).response)

    async def delete(self, request: web.Request) -> web.Response:
        """``DELETE /v1/responses/{id}``: forget it"""
        number = request.match_info["id"]
        if not await self._store.remove(number):
            raise not_found(number)
        return _json({"id": number, "object": "response", "deleted": True})

    async def cancel(self, request: web.Request) -> web.Response:
        """``POST /v1/responses/{id}/cancel``: stop one that is being made in the background"""
        number = request.match_info["id"]
        stored = await stored_in(self._store, number)
        if not stored.response["background"]:
            raise ApiError("Cannot cancel a synchronous response.", param="response_id")
        if stored.response["status"] == IN_PROGRESS:
            stored = replace(stored, response={**stored.response, "status": "cancelled"})
            await self._store.cancel(number)
            await self._store.put(number, await stored.written())
        return _json(stored.response)

    async def _understood(
        self, request: web.Request, defaults: Mapping[str, Any] | None = None
    ) -> tuple[ResponsesRequest, list[Json], ChatRequest]:
        """The body with what it refers to in its place, the messages before it, and the chat that all amounts to."""
        body = await read_body(request, ResponsesRequest, _refuse, defaults)
        body = body.model_copy(update={"input": await self._with_references(body.input)})
        earlier = await self._earlier(body.previous_response_id)
        return body, earlier, await read_body(request, ChatRequest, self._models.refuse, given=body.chat(earlier))

    async def _with_references(self, given: str | list[Json]) -> str | list[Json]:
        """The input with what is meant in place of each ``item_reference``."""
        if isinstance(given, str) or not any(is_reference(one) for one in given):
            return given
        return [
            await item_in(self._store, referred(one, f"input.{at}"), f"input.{at}") if is_reference(one) else one
            for at, one in enumerate(given)
        ]

    async def _earlier(self, previous: str | None) -> list[Json]:
        """The conversation that is to go on."""
        if previous is None:
            return []
        stored = await stored_in(self._store, previous, PREVIOUS)
        status = stored.response["status"]
        if status not in ("completed", "incomplete"):
            raise ApiError(f"The response {previous!r} is {status}; go on from one that has ended.", param=PREVIOUS)
        return stored.messages

    @asynccontextmanager
    async def _planned(
        self, request: web.Request, number: str, body: ResponsesRequest, chat: ChatRequest
    ) -> AsyncIterator[tuple[Service, Head, Plan, AsyncIterator[TokenEvent]]]:
        """The model, and the engine's stream of the answer, which it has begun to make."""
        async with self._models.use(body.model) as service:
            head = Head(number, service.model, body)
            plan = await service.planner.chat(chat, head.id)
            longest = max(len(choice.sequence.prompt_token_ids) for choice in plan.choices)
            await self._limits.admit(request, longest, plan.prompt_tokens + plan.output_tokens)
            note(request, model=service.model, stream=body.stream, prompt_tokens=plan.prompt_tokens)
            async with opened(service.engine, [plan.choices[0].sequence]) as streams:
                yield service, head, plan, streams[0]

    async def _behind(
        self,
        request: web.Request,
        number: str,
        body: ResponsesRequest,
        chat: ChatRequest,
        messages: list[Json],
        begun: Begun,
    ) -> None:
        """Make a response that is looked up later; what fails once it has ``begun`` becomes a part of it."""
        async with self._planned(request, number, body, chat) as (service, head, plan, stream):
            now = response_object(head, IN_PROGRESS, [])
            asked = told_input(head.number, body.input)
            await self._store.put(head.id, await Stored(now, asked, messages).written())
            begun(now | {"status": "queued"})
            try:
                pieces, ended = await _read(plan.choices[0], stream)
            except Exception as error:
                why = {"code": "server_error", "message": as_api_error(error).message}
                failed = response_object(head, "failed", [], error=why)
                await self._store.put(head.id, await Stored(failed, asked, messages).written())
            else:
                await self._done(request, service, head, plan, pieces, ended, messages)

    async def _streamed(
        self, request: web.Request, head: Head, plan: Plan, stream: AsyncIterator[TokenEvent], keep: Keep
    ) -> web.StreamResponse:
        """Write the events, the last once the response is kept: who has read it may go on from it at any worker.

        What fails after the first byte is an event of its own.
        """
        response = web.StreamResponse(headers=SSE_HEADERS)
        await response.prepare(request)
        writer, choice, tokens = EventWriter(head), plan.choices[0], 0
        pieces: list[Piece] = []
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
            await keep(pieces, ended)
            whole = finished(head, plan, pieces, ended)
            await response.write(writer.closing(whole, whole["status"]))
        except ConnectionError:
            raise
        except Exception as error:
            await response.write(writer.failure(error_object(as_api_error(error))))
        await response.write_eof()
        return response

    async def _done(
        self,
        request: web.Request,
        service: Service,
        head: Head,
        plan: Plan,
        pieces: list[Piece],
        ended: Ended,
        messages: list[Json],
    ) -> None:
        service.answered(*longest_choices(plan, [ended]))
        note(request, output_tokens=ended.tokens)
        await self._limits.charging.give_back(request, plan.output_tokens - ended.tokens)
        if head.request.store:
            whole = finished(head, plan, pieces, ended) | {"completed_at": int(time.time())}
            asked = told_input(head.number, head.request.input)
            stored = Stored(whole, asked, [*messages, *answer_messages(merged(pieces))])
            await self._store.put(head.id, await stored.written())


async def _read(choice: Choice, stream: AsyncIterator[TokenEvent]) -> tuple[list[Piece], Ended]:
    """All of the answer, in one piece where the stream can do that: nobody needs to wake up for each token."""
    if isinstance(stream, TokenStream):
        stream.merge_all()
    pieces, tokens = [], 0
    async for event in stream:
        check_not_given_up(event)
        tokens += event.tokens
        pieces.append(choice.read(event))
    return pieces, Ended.of(choice, tokens, event.timing)


def _refuse(fields: Json) -> None:
    """See :func:`refuse`. What goes on in the background is streamed to nobody, whatever the server's default is."""
    refuse(fields)
    if fields.get("background") is True and fields.get("stream") is None:
        fields["stream"] = False


def _number() -> str:
    return current_request_id().replace("-", "")


def _json(body: Json, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json", headers=headers)
