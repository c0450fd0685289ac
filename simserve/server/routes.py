"""The handlers: each reads a request, asks the planner and the engine, and writes an answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import orjson
from aiohttp import web

from simserve.engines.base import Engine
from simserve.server.embeddings import Embedder, EmbeddingRequest, embeddings_body
from simserve.server.errors import ApiError, model_not_found
from simserve.server.plans import Plan, Planner
from simserve.server.protocol import ChatRequest, CompletionFields, CompletionRequest, parse
from simserve.server.request_ids import current_request_id
from simserve.server.responses import Envelope, model_card, timing_headers, whole_body
from simserve.server.status import status_body
from simserve.server.streaming import SSE_HEADERS, stream_answer
from simserve.server.streams import Answer, Ended, opened, together, whole_answer
from simserve.server.telemetry import Telemetry

log = logging.getLogger("simserve.server")

# Reading more JSON than this takes long enough to delay other clients' tokens, so it is done in a thread.
INLINE_BODY_BYTES = 256 * 1024

Body = TypeVar("Body", CompletionRequest, ChatRequest, EmbeddingRequest)


@dataclass
class Service:
    """What the handlers share: the engine, what speaks for it, and the model's names (answers carry the first)."""

    engine: Engine
    planner: Planner
    embedder: Embedder
    model_names: Sequence[str]
    model_root: str
    created_s: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.telemetry = Telemetry(self.engine, self.model)

    @property
    def model(self) -> str:
        return self.model_names[0]

    def check_model(self, name: str | None) -> None:
        """Raise 404 for a model that is not served; no name at all means the one that is."""
        if name is not None and name not in self.model_names:
            raise model_not_found(name)


class Routes:
    """All endpoints over one :class:`Service`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        return [
            web.post("/v1/chat/completions", self.chat_completions),
            web.post("/v1/completions", self.completions),
            web.post("/v1/embeddings", self.embeddings),
            web.get("/v1/models", self.models),
            web.get("/v1/models/{model:.+}", self.model),
            web.get("/status", self.status),
        ]

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/chat/completions``"""
        body = await self._body(request, ChatRequest)
        envelope = self._envelope(chat=True)
        plan = await self._service.planner.chat(body, envelope.request_id)
        return await self._answer(request, body, envelope, plan)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/completions``"""
        body = await self._body(request, CompletionRequest)
        envelope = self._envelope(chat=False)
        plan = await self._service.planner.completion(body, envelope.request_id)
        return await self._answer(request, body, envelope, plan)

    async def embeddings(self, request: web.Request) -> web.Response:
        """``POST /v1/embeddings``"""
        body = await self._body(request, EmbeddingRequest)
        service = self._service
        body.check_dimensions(service.embedder.dimensions)
        prompts = await service.planner.token_ids(body.input, "input")
        prompt_tokens = sum(map(len, prompts))
        log.info("Added request: input_len=%d, to embed", prompt_tokens)
        vectors = await service.embedder.embed(prompts, f"embd-{current_request_id()}")
        content = embeddings_body(body, service.model, vectors, prompt_tokens)
        return web.Response(body=content, content_type="application/json")

    async def models(self, request: web.Request) -> web.Response:
        """``GET /v1/models``"""
        return _json({"object": "list", "data": [self._card(name) for name in self._service.model_names]})

    async def model(self, request: web.Request) -> web.Response:
        """``GET /v1/models/{model}``, as OpenAI has it."""
        name = request.match_info["model"]
        self._service.check_model(name)
        return _json(self._card(name))

    async def status(self, request: web.Request) -> web.Response:
        """``GET /status``: what is going on right now; memory is the KV cache's, in bytes."""
        return _json(status_body(self._service.engine))

    async def _body(self, request: web.Request, kind: type[Body]) -> Body:
        if request.content_type != "application/json":
            raise ApiError("The request must have the header Content-Type: application/json.")
        raw = await request.read()
        in_thread = len(raw) > INLINE_BODY_BYTES
        refuse = self._service.planner.refuse
        body = await asyncio.to_thread(parse, raw, kind, refuse) if in_thread else parse(raw, kind, refuse)
        self._service.check_model(body.model)
        return body

    def _envelope(self, *, chat: bool) -> Envelope:
        prefix = "chatcmpl-" if chat else "cmpl-"
        return Envelope(prefix + current_request_id(), self._service.model, int(time.time()), chat)

    def _card(self, name: str) -> dict[str, object]:
        service = self._service
        return model_card(name, service.model_root, service.created_s, service.engine.max_model_len)

    async def _answer(
        self, request: web.Request, body: CompletionFields, envelope: Envelope, plan: Plan
    ) -> web.StreamResponse:
        _log_added(request, body, envelope, plan)
        async with opened(self._service.engine, [choice.sequence for choice in plan.choices]) as streams:
            ended: Sequence[Ended]
            if body.stream:
                response: web.StreamResponse = web.StreamResponse(headers=SSE_HEADERS)
                await response.prepare(request)
                ended = await stream_answer(request, response, body, envelope, plan, streams)
            else:
                pairs = zip(plan.choices, streams, strict=True)
                ended = await together([whole_answer(choice, stream) for choice, stream in pairs])
                response = _whole_response(envelope, plan, ended)
        self._service.telemetry.answered(plan, ended)
        _log_finished(envelope, ended)
        return response


def _whole_response(envelope: Envelope, plan: Plan, answers: Sequence[Answer]) -> web.Response:
    return web.Response(
        body=whole_body(envelope, plan, answers),
        content_type="application/json",
        headers=timing_headers(answers),
    )


def _json(body: dict[str, object]) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def _log_added(request: web.Request, body: CompletionFields, envelope: Envelope, plan: Plan) -> None:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    who = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unknown"
    how = "streamed" if body.stream else "plain"
    log.info("%s POST %s %s (%s, n=%d)", who, request.path, envelope.request_id, how, len(plan.choices))
    log.info("Added request: input_len=%d, output_len=%d", plan.prompt_tokens, plan.most_output_tokens)


def _log_finished(envelope: Envelope, ended: Sequence[Ended]) -> None:
    times = ", ".join(f"{name[11:]} {value}" for name, value in timing_headers(ended).items())
    log.debug("Finished request: %s %s", envelope.request_id, times)
