"""How well texts match a question: ``/score`` and ``/rerank``, with the bodies of vLLM, Jina and Cohere.

The simulated engine takes the time of a model that reads question and text together. Its scores are how alike their
words are, 0 to 1, since there is no model behind them; those of the torch engine compare the model's embeddings.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from aiohttp import web
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from simserve.server.bodies import read_body
from simserve.server.embeddings import Embedded
from simserve.server.fields import Fields, Truncation, Whole, contradiction, truncated
from simserve.server.limits import RequestLimits
from simserve.server.logs import note
from simserve.server.models import Models
from simserve.server.request_ids import current_request_id
from simserve.server.responses import timing_headers
from simserve.server.streams import Ended

MAX_TEXTS = 2048


def _texts(value: object) -> list[str]:
    """One text or many, each plain or an object with a ``text``."""
    if isinstance(value, str | dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise PydanticCustomError("texts", "give a string or a list of strings")
    if len(value) > MAX_TEXTS:
        raise PydanticCustomError("texts", f"give at most {MAX_TEXTS} texts")
    texts = [one.get("text") if isinstance(one, dict) else one for one in value]
    strings = [text for text in texts if isinstance(text, str)]
    if len(strings) < len(texts):
        raise PydanticCustomError("texts", "every text should be a string, or an object with a `text`")
    return strings


Texts = Annotated[list[str], BeforeValidator(_texts)]


class ScoreRequest(Fields):
    """Body of ``POST /score``: one text against many, or as many against as many, pair by pair."""

    model: str | None = None
    text_1: Texts
    text_2: Texts
    truncate_prompt_tokens: Truncation = None
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _newer_names(cls, fields: Any) -> Any:
        if isinstance(fields, dict):
            for older, newer in (("text_1", "queries"), ("text_2", "documents"), ("text_2", "items")):
                if older not in fields and newer in fields:
                    fields = {**fields, older: fields[newer]}
        return fields

    @model_validator(mode="after")
    def _they_pair(self) -> ScoreRequest:
        if len(self.text_1) not in (1, len(self.text_2)):
            raise contradiction("text_1", "`text_1` must be one text, or as many as `text_2`")
        return self

    def pairs(self) -> list[tuple[str, str]]:
        """What to compare."""
        first = self.text_1 * len(self.text_2) if len(self.text_1) == 1 else self.text_1
        return list(zip(first, self.text_2, strict=True))


class RerankRequest(Fields):
    """Body of ``POST /rerank``; the best ``top_n`` are returned, 0 for all."""

    model: str | None = None
    query: str
    documents: Texts
    top_n: Annotated[Whole, Field(ge=0)] = 0
    return_documents: bool = True
    max_tokens_per_doc: Annotated[Whole, Field(ge=0)] = 0
    truncate_prompt_tokens: Truncation = None
    user: str | None = None


class ScoringRoutes:
    """The endpoints over ``models``; ``limits`` are asked before the engine."""

    def __init__(self, models: Models, limits: RequestLimits) -> None:
        self._models = models
        self._limits = limits

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        scores = [web.post(path, self.score) for path in ("/score", "/v1/score")]
        return [*scores, *(web.post(path, self.rerank) for path in ("/rerank", "/v1/rerank", "/v2/rerank"))]

    async def score(self, request: web.Request) -> web.Response:
        """``POST /score``, ``/v1/score``: how well texts match, pair by pair"""
        body = await read_body(request, ScoreRequest)
        model, scored, tokens = await self._scores(request, body, body.pairs(), "text_2")
        data = [{"index": at, "object": "score", "score": score} for at, score in enumerate(scored.values)]
        head = {"id": f"score-{current_request_id()}", "object": "list", "created": int(time.time()), "model": model}
        return _json({**head, "data": data, "usage": _usage(tokens)}, scored.reads)

    async def rerank(self, request: web.Request) -> web.Response:
        """``POST /rerank``, ``/v1/rerank``, ``/v2/rerank``: documents by how well they match a question"""
        body = await read_body(request, RerankRequest)
        pairs = [(body.query, text) for text in body.documents]
        model, scored, tokens = await self._scores(request, body, pairs, "documents", body.max_tokens_per_doc)
        scores = scored.values
        ranked = sorted(range(len(scores)), key=lambda at: -scores[at])[: body.top_n or None]
        results = [
            {"index": at, "relevance_score": scores[at]}
            | ({"document": {"text": body.documents[at]}} if body.return_documents else {})
            for at in ranked
        ]
        head = {"id": f"rerank-{current_request_id()}", "model": model}
        return _json({**head, "results": results, "usage": _usage(tokens)}, scored.reads)

    async def _scores(
        self,
        request: web.Request,
        body: ScoreRequest | RerankRequest,
        pairs: list[tuple[str, str]],
        param: str,
        most: int = 0,
    ) -> tuple[str, Embedded, int]:
        """The model's name, a score for each pair, and how many tokens were read."""
        async with self._models.use(body.model) as service:
            room = service.engine.max_model_len - 1

            def cut(tokens: list[int]) -> list[int]:
                tokens = tokens[:most] if most else tokens
                return tokens if body.truncate_prompt_tokens is None else tokens[:room]

            queries = list(dict.fromkeys(one for one, _ in pairs))  # most often there is one
            tokens_of = dict(zip(queries, await service.planner.token_ids(queries, "query"), strict=True))
            firsts = [tokens_of[one] for one, _ in pairs]
            seconds = await service.planner.token_ids([other for _, other in pairs], param, cut)
            both = [
                (one, truncated(other, body.truncate_prompt_tokens, room, "right", len(one)))
                for one, other in zip(firsts, seconds, strict=True)
            ]
            tokens = sum(len(one) + len(other) for one, other in both)
            longest = max(len(one) + len(other) for one, other in both)
            service.planner.check_length(longest, param)
            await self._limits.admit(request, longest, tokens)
            note(request, model=service.model, prompt_tokens=tokens)
            return service.model, await service.embedder.scores(both, f"score-{current_request_id()}"), tokens


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}


def _json(body: dict[str, object], reads: Sequence[Ended]) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json", headers=timing_headers(reads))
