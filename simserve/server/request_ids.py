"""An id for every request: said in ``x-request-id`` on every response and part of every answer's ``id``."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

from aiohttp import web

from simserve.server.errors import Handler, Middleware
from simserve.server.secrecy import Secrets

USABLE = re.compile(r"(?!sk-)[\w.:-]{1,128}", re.ASCII)
"""What a client may call its request; a key is not a name."""

_current: ContextVar[str] = ContextVar("simserve_request_id", default="")


def request_ids(secrets: Secrets) -> Middleware:
    """A middleware that takes the client's own ``X-Request-Id`` where it sent a usable one, else makes one up."""

    @web.middleware
    async def name_it(request: web.Request, handler: Handler) -> web.StreamResponse:
        sent = request.headers.get("X-Request-Id")
        _current.set(uuid.uuid4().hex if sent is None else _usable(sent, secrets))
        return await handler(request)

    return name_it


def _usable(sent: str, secrets: Secrets) -> str:
    """What a client calls its request, if it can be said again; a key, or a part of one, can not."""
    return sent if USABLE.fullmatch(sent) and not secrets.are_in(sent) else uuid.uuid4().hex


async def say_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Put the id on every response, streamed or not (an ``on_response_prepare`` signal)."""
    response.headers["x-request-id"] = _current.get()


def current_request_id() -> str:
    """The id of the request that the calling task is about."""
    return _current.get()
