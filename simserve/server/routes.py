"""The handlers: each reads a request, asks the planner and the engine, and writes an answer."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TypeVar

import orjson
from aiohttp import web

from simserve.server.errors import ApiError
from simserve.server.generation import Plan
from simserve.server.limits import RequestLimits, taken_deadline
from simserve.server.logs import note
from simserve.server.models import ModelPool, model_cards
from simserve.server.protocol import ChatRequest, CompletionFields, CompletionRequest, parse
from simserve.server.request_ids import current_request_id
from simserve.server.responses import Envelope, timing_headers, whole_body
from simserve.server.service import Service
from simserve.server.status import status_body
from simserve.server.streaming import SSE_HEADERS, Timings, stream_answer
from simserve.server.streams import drained, opened, together

log = logging.getLogger("simserve.server")

# Reading more JSON than this takes long enough to delay other clients' tokens, so it is done in a thread.
INLINE_BODY_BYTES = 256 * 1024

Body = TypeVar("Body", bound=CompletionFields)


class Routes:
    """The endpoints of models: ``models`` has those that can be asked for, ``limits`` what is asked of a request."""

    def __init__(self, models: ModelPool, limits: RequestLimits) -> None:
        self._models = models
        self._limits = limits

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        return [
            web.post("/v1/chat/completions", self.chat_completions),
            web.post("/v1/completions", self.completions),
            web.get("/v1/models", self.models),
            web.get("/v1/models/{model:.+}", self.model),
            web.get("/health", self.health),
            web.get("/status", self.status),
        ]

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/chat/completions``"""
        body = await self._body(request, ChatRequest)
        async with self._models.use(body.model) as service:
            envelope = _envelope(service, chat=True)
            plan = await service.planner.chat(body, envelope.request_id)
            return await self._answer(request, body, service, envelope, plan)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/completions``"""
        body = await self._body(request, CompletionRequest)
        async with self._models.use(body.model) as service:
            envelope = _envelope(service, chat=False)
            plan = await service.planner.completion(body, envelope.request_id)
            return await self._answer(request, body, service, envelope, plan)

    async def models(self, request: web.Request) -> web.Response:
        """``GET /v1/models``"""
        return _json({"object": "list", "data": model_cards(self._models)})

    async def model(self, request: web.Request) -> web.Response:
        """``GET /v1/models/{model}``, as OpenAI has it."""
        name = request.match_info["model"]
        self._models.check(name)
        return _json(next(card for card in model_cards(self._models) if card["id"] == name))

    async def health(self, request: web.Request) -> web.Response:
        """``GET /health``: 200 and an empty body, 503 once the server shuts down."""
        return web.Response(status=503 if self._limits.drain.ending else 200)

    async def status(self, request: web.Request) -> web.Response:
        """``GET /status``: what is going on right now; memory is the KV cache's, in bytes."""
        return _json(status_body(self._models))

    async def _body(self, request: web.Request, kind: type[Body]) -> Body:
        if request.content_type != "application/json":
            raise ApiError("The request must have the header Content-Type: application/json.")
        raw = await request.read()
        in_thread = len(raw) > INLINE_BODY_BYTES
        defaults = {"stream": self._limits.rules.streaming_default}
        body = await asyncio.to_thread(parse, raw, kind, defaults) if in_thread else parse(raw, kind, defaults)
        self._models.check(body.model)
        return body

    async def _answer(
        self, request: web.Request, body: CompletionFields, service: Service, envelope: Envelope, plan: Plan
    ) -> web.StreamResponse:
        await self._limits.admit(request, service.engine, plan)
        _log_added(request, body, envelope, plan)
        tokens = {"prompt_tokens": plan.prompt_tokens, "output_tokens": plan.output_tokens}
        note(request, model=envelope.model, stream=body.stream, **tokens)
        async with opened(service.engine, [choice.sequence for choice in plan.choices]) as streams:
            if body.stream:
                response: web.StreamResponse = web.StreamResponse(headers=SSE_HEADERS)
                await response.prepare(request)
                timings = await stream_answer(response, body, envelope, plan, streams, taken_deadline(request))
            else:
                timings = await together([drained(stream) for stream in streams])
                response = _whole_response(envelope, plan, timings)
        _log_finished(envelope, timings)
        return response


def _envelope(service: Service, *, chat: bool) -> Envelope:
    prefix = "chatcmpl-" if chat else "cmpl-"
    return Envelope(prefix + current_request_id(), service.model, int(time.time()), chat)


def _whole_response(envelope: Envelope, plan: Plan, timings: Timings) -> web.Response:
    return web.Response(
        body=whole_body(envelope, plan, timings),
        content_type="application/json",
        headers=timing_headers(timings),
    )


def _json(body: dict[str, object]) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def _log_added(request: web.Request, body: CompletionFields, envelope: Envelope, plan: Plan) -> None:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    who = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unknown"
    how = "streamed" if body.stream else "plain"
    log.info("%s POST %s %s (%s, n=%d)", who, request.path, envelope.request_id, how, len(plan.choices))
    log.info("Added request: input_len=%d, output_len=%d", plan.prompt_tokens, plan.output_tokens)


def _log_finished(envelope: Envelope, timings: Timings) -> None:
    times = ", ".join(f"{name[11:]} {value}" for name, value in timing_headers(timings).items())
    log.debug("Finished request: %s %s", envelope.request_id, times)
