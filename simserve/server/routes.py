"""The handlers: each reads a request, asks the planner and the engine, and writes an answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TypeVar

import orjson
from aiohttp import web

from simserve.server.bodies import read_body
from simserve.server.embeddings import EmbeddingRequest, embeddings_body
from simserve.server.errors import model_not_found
from simserve.server.limits import RequestLimits, taken_deadline
from simserve.server.load_header import load_header
from simserve.server.logs import note
from simserve.server.models import Models
from simserve.server.plans import Plan, run
from simserve.server.protocol import ChatRequest, CompletionFields, CompletionRequest
from simserve.server.request_ids import current_request_id
from simserve.server.responses import Envelope, timing_headers, whole_body
from simserve.server.secrecy import SECRETS
from simserve.server.service import Service
from simserve.server.streaming import SSE_HEADERS, stream_answer
from simserve.server.streams import Ended, longest_choices, opened, together, whole_answer

log = logging.getLogger("simserve.server")

INLINE_NUMBERS = 20_000
"""Tokens or numbers of an answer; one that has more is made in a thread."""

NUMBERS_PER_LOGPROB = 10
"""What telling of one token's likelihood costs, in tokens told without."""

Body = TypeVar("Body", CompletionRequest, ChatRequest, EmbeddingRequest)


class Routes:
    """The endpoints of models: ``models`` has those that can be asked for, ``limits`` what is asked of a request."""

    def __init__(self, models: Models, limits: RequestLimits) -> None:
        self._models = models
        self._limits = limits

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
        """``POST /v1/chat/completions``: an answer to a conversation"""
        body = await self._body(request, ChatRequest)
        async with self._models.use(body.model) as service:
            envelope = _envelope(request, service, body, chat=True)
            plan = await service.planner.chat(body, envelope.request_id)
            return await self._answer(request, body, service, envelope, plan)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/completions``: how a text goes on"""
        body = await self._body(request, CompletionRequest)
        async with self._models.use(body.model) as service:
            envelope = _envelope(request, service, body, chat=False)
            plan = await service.planner.completion(body, envelope.request_id)
            return await self._answer(request, body, service, envelope, plan)

    async def embeddings(self, request: web.Request) -> web.Response:
        """``POST /v1/embeddings``: vectors for texts"""
        body = await self._body(request, EmbeddingRequest)
        async with self._models.use(body.model) as service:
            body.check_dimensions(service.embedder.dimensions)
            prompts = await self._to_embed(request, body, service)
            prompt_tokens = sum(map(len, prompts))
            await self._limits.admit(request, max(map(len, prompts)), prompt_tokens)
            log.info("Added request: input_len=%d, to embed", prompt_tokens)
            note(request, model=service.model, prompt_tokens=prompt_tokens)
            embedded = await service.embedder.embed(prompts, f"embd-{current_request_id()}")
            content = await run(
                lambda: embeddings_body(body, service.model, embedded.values, prompt_tokens),
                in_thread=len(prompts) * service.embedder.dimensions > INLINE_NUMBERS,
            )
            return _json_bytes(content, timing_headers(embedded.reads))

    async def _to_embed(self, request: web.Request, body: EmbeddingRequest, service: Service) -> list[list[int]]:
        """The tokens of each text, or of the one conversation."""
        cut = body.cut(service.engine.max_model_len)
        if body.messages is None:
            return await service.planner.token_ids(body.input, "input", cut)
        given = {"messages": body.messages, "add_generation_prompt": False}
        tokens, _ = await service.planner.chat_prompt(
            await read_body(request, ChatRequest, self._models.refuse, given=given)
        )
        tokens = cut(tokens)
        service.planner.check_length(len(tokens), "messages")
        return [tokens]

    async def models(self, request: web.Request) -> web.Response:
        """``GET /v1/models``: all models, loaded or not, and adapters"""
        return _json({"object": "list", "data": await self._models.cards()})

    async def model(self, request: web.Request) -> web.Response:
        """``GET /v1/models/{model}``: one of them"""
        name = request.match_info["model"]
        card = next((card for card in await self._models.cards() if card["id"] == name), None)
        if card is None:
            raise model_not_found(name)
        return _json(card)

    async def status(self, request: web.Request) -> web.Response:
        """``GET /status``: what is going on right now; memory is the KV cache's, in bytes."""
        return _json(await self._models.report())

    async def _body(self, request: web.Request, kind: type[Body]) -> Body:
        return await read_body(request, kind, self._models.refuse, {"stream": self._limits.rules.streaming_default})

    async def _answer(
        self, request: web.Request, body: CompletionFields, service: Service, envelope: Envelope, plan: Plan
    ) -> web.StreamResponse:
        longest = max(len(choice.sequence.prompt_token_ids) for choice in plan.choices)
        most = plan.output_tokens
        await self._limits.admit(request, longest, plan.prompt_tokens + most)
        _log_added(request, body, envelope, plan)
        note(request, model=envelope.model, stream=body.stream, prompt_tokens=plan.prompt_tokens)
        async with opened(service.engine, [choice.sequence for choice in plan.choices]) as streams:
            ended: Sequence[Ended]
            if body.stream:
                load = await load_header(request.headers, lambda: self._models.engine_load(body.model))
                response: web.StreamResponse = web.StreamResponse(headers={**SSE_HEADERS, **load})
                await response.prepare(request)
                deadline_s = taken_deadline(request)
                ended = await stream_answer(request, response, body, envelope, plan, streams, deadline_s)
            else:
                pairs = zip(plan.choices, streams, strict=True)
                slow = _takes_long(body, plan.prompt_tokens, most)
                ended = answers = await together(
                    [whole_answer(choice, stream, in_thread=slow) for choice, stream in pairs]
                )
                load = await load_header(request.headers, lambda: self._models.engine_load(body.model))
                content = await run(lambda: whole_body(envelope, plan, answers), in_thread=slow)
                response = _json_bytes(content, {**timing_headers(answers), **load})
        service.answered(*longest_choices(plan, ended))
        if ended:
            output_tokens = sum(one.tokens for one in ended)
            note(request, output_tokens=output_tokens)
            await self._limits.charging.give_back(request, most - output_tokens)
        _log_finished(envelope, ended)
        return response


def _envelope(request: web.Request, service: Service, body: CompletionFields, *, chat: bool) -> Envelope:
    prefix, own = "chatcmpl-" if chat else "cmpl-", body.request_id
    number = current_request_id() if own is None or request.app[SECRETS].are_in(own) else own
    return Envelope(prefix + number, service.model, int(time.time()), chat)


def _takes_long(body: CompletionFields, prompt_tokens: int, output_tokens: int) -> bool:
    """Whether an answer is so long, or has so much told of it, that other streams would wait while it is written."""
    likeliest = body.likeliest_tokens()
    each = 1 if likeliest is None else NUMBERS_PER_LOGPROB * (1 + likeliest)
    is_told_of_prompt = body.prompt_logprobs is not None or (body.echo and likeliest is not None)
    return (output_tokens + prompt_tokens * is_told_of_prompt) * each > INLINE_NUMBERS


def _json_bytes(body: bytes, headers: Mapping[str, str]) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers=headers)


def _json(body: dict[str, object]) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def _log_added(request: web.Request, body: CompletionFields, envelope: Envelope, plan: Plan) -> None:
    if not log.isEnabledFor(logging.INFO):
        return
    peer = request.transport.get_extra_info("peername") if request.transport else None
    who = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unknown"
    how = "streamed" if body.stream else "plain"
    log.info("%s POST %s %s (%s, n=%d)", who, request.path, envelope.request_id, how, len(plan.choices))
    relation = "=" if plan.is_settled else "<="
    log.info("Added request: input_len=%d, output_len%s%d", plan.prompt_tokens, relation, plan.output_tokens)


def _log_finished(envelope: Envelope, ended: Sequence[Ended]) -> None:
    if not log.isEnabledFor(logging.DEBUG):
        return
    times = ", ".join(f"{name[11:]} {value}" for name, value in timing_headers(ended).items())
    log.debug("Finished request: %s %s", envelope.request_id, times)
