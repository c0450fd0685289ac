"""An id for every request: said in ``x-request-id`` on every response and part of every answer's ``id``."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

from aiohttp import web

from simserve.server.errors import Handler

USABLE = re.compile(r"(?!sk-)[\w.:-]{1,128}", re.ASCII)
"""What a client may call its request; a key is not a name."""

_current: ContextVar[str] = ContextVar("simserve_request_id", default="")


@web.middleware
async def request_ids(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take the client's own ``X-Request-Id`` where it sent a usable one, which a key is not, else make one up."""
    sent = request.headers.get("X-Request-Id", "")
    _current.set(sent if USABLE.fullmatch(sent) else uuid.uuid4().hex)
    return await handler(request)


async def say_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Put the id on every response, streamed or not (an ``on_response_prepare`` signal)."""
    response.headers["x-request-id"] = _current.get()


def current_request_id() -> str:
    """The id of the request that the calling task is about."""
    return _current.get()
