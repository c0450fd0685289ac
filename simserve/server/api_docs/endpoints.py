"""Which body each endpoint takes; everything else is read off the application's own routes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aiohttp import web
from pydantic import BaseModel

from simserve.server.admin import ConfigChange, ModelName
from simserve.server.auth.permissions import permission_for
from simserve.server.cluster_routes import KillReplica
from simserve.server.embeddings import EmbeddingRequest
from simserve.server.models import LoadAdapter, UnloadAdapter
from simserve.server.protocol import ChatRequest, CompletionRequest
from simserve.server.responses_api.request import ResponsesRequest
from simserve.server.scoring import RerankRequest, ScoreRequest
from simserve.server.text_routes import DetokenizeRequest, TokenizeRequest

BODIES: Mapping[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
    "/v1/responses/input_tokens": ResponsesRequest,
    "/v1/embeddings": EmbeddingRequest,
    "/score": ScoreRequest,
    "/v1/score": ScoreRequest,
    "/rerank": RerankRequest,
    "/v1/rerank": RerankRequest,
    "/v2/rerank": RerankRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
    "/v1/load_lora_adapter": LoadAdapter,
    "/v1/unload_lora_adapter": UnloadAdapter,
    "/admin/config": ConfigChange,
    "/admin/models/load": ModelName,
    "/admin/models/unload": ModelName,
    "/cluster/replicas/{name}/kill": KillReplica,
}
STREAMED = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


@dataclass(frozen=True)
class Endpoint:
    """One method of one path; ``path`` has its parameters in braces, ``says`` is what it is for."""

    method: str
    path: str
    says: str
    body: type[BaseModel] | None
    permission: str

    @property
    def parameters(self) -> list[str]:
        """The names in the path."""
        return re.findall(r"\{(\w+)\}", self.path)


def endpoints_of(app: web.Application) -> Iterator[Endpoint]:
    """Every endpoint that ``app`` has, in the order of its routes."""
    for route in app.router.routes():
        if route.method == "HEAD" or route.resource is None:
            continue
        path = re.sub(r"\{(\w+):[^{}]*(\{[^}]*\}[^{}]*)*\}", r"{\1}", _pattern(route.resource))
        body = BODIES.get(path) if route.method == "POST" else None
        yield Endpoint(route.method, path, _purpose(route), body, permission_for(path))


def _pattern(resource: web.AbstractResource) -> str:
    return resource.canonical


def _purpose(route: web.AbstractRoute) -> str:
    """What the handler's docstring says after the path."""
    said = " ".join((route.handler.__doc__ or "").split())
    said = re.sub(r"^``(GET|POST|DELETE) [^`]*``(( and|,) ``[^`]*``)*[:,;]?\s*", "", said)
    said = re.sub(r":\w+:`(\w+\.)?(\w+)`", r"`\2`", said)
    return (said[:1].upper() + said[1:]).replace("``", "`").rstrip(".") or f"{route.method} {route.resource.canonical}"  # type: ignore[union-attr]
