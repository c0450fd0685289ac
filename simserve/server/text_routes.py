"""``/tokenize`` and ``/detokenize``, with vLLM's bodies: what the other endpoints count, and back."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from aiohttp import web
from pydantic import Field, model_validator

from simserve.errors import RequestError
from simserve.server.bodies import read_body
from simserve.server.errors import ApiError
from simserve.server.fields import Fields, Flag, Whole, contradiction
from simserve.server.models import Models
from simserve.server.plans import run
from simserve.server.protocol import ChatRequest

MAX_TOKEN_IDS = 1_000_000
INLINE_TOKENS = 1_000
"""More are worked on in a thread, so that nobody's stream waits."""


class TokenizeRequest(Fields):
    """Body of ``POST /tokenize``: a ``prompt``, or ``messages`` with their tools as in a chat."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Any] | None = None
    tools: list[Any] | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    add_generation_prompt: Flag = True
    continue_final_message: Flag = False
    add_special_tokens: Flag | None = None
    return_token_strs: Flag = False

    @model_validator(mode="after")
    def _there_is_one(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise contradiction("prompt", "give either `prompt` or `messages`")
        return self

    def chat(self) -> dict[str, Any]:
        """The same as a chat's body."""
        tools = {} if self.tools is None else {"tools": self.tools}
        names = ("messages", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")
        return {name: getattr(self, name) for name in (*names, "add_special_tokens")} | tools


class DetokenizeRequest(Fields):
    """Body of ``POST /detokenize``."""

    model: str | None = None
    tokens: Annotated[list[Annotated[Whole, Field(ge=0, lt=2**31)]], Field(max_length=MAX_TOKEN_IDS)]


class TextRoutes:
    """The endpoints over ``models``."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        return [web.post("/tokenize", self.tokenize), web.post("/detokenize", self.detokenize)]

    async def tokenize(self, request: web.Request) -> web.Response:
        """``POST /tokenize``: the tokens that ``usage`` would count for this prompt."""
        body = await read_body(request, TokenizeRequest)
        async with self._models.use(body.model) as service:
            if body.prompt is not None:
                tokens = await service.planner.tokens_of(body.prompt, special=body.add_special_tokens is not False)
            else:
                chat = await read_body(request, ChatRequest, self._models.refuse, given=body.chat())
                tokens, _ = await service.planner.chat_prompt(chat)
            most, text_of = service.engine.max_model_len, service.planner.text_of

            def told() -> web.Response:
                texts = [text_of([token]) for token in tokens] if body.return_token_strs else None
                return _json({"count": len(tokens), "max_model_len": most, "tokens": tokens, "token_strs": texts})

            return await run(told, in_thread=len(tokens) > INLINE_TOKENS)

    async def detokenize(self, request: web.Request) -> web.Response:
        """``POST /detokenize``: the text of token ids."""
        body = await read_body(request, DetokenizeRequest)
        async with self._models.use(body.model) as service:
            service.planner.check_ids(body.tokens, "tokens")
            try:
                text = await run(
                    lambda: service.planner.text_of(body.tokens), in_thread=len(body.tokens) > INLINE_TOKENS
                )
                return _json({"prompt": text})
            except RequestError as error:
                raise ApiError(str(error), param="tokens") from None


def _json(body: dict[str, object]) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")
