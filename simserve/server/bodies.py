"""Reading the JSON bodies of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

from simserve.server.errors import ApiError
from simserve.server.protocol import parse

# Reading more JSON than this takes long enough to delay other clients' tokens, so it is done in a thread.
INLINE_BODY_BYTES = 64 * 1024
INLINE_MESSAGES = 100

Body = TypeVar("Body", bound=BaseModel)


async def read_body(
    request: web.Request,
    kind: type[Body],
    refuse: Callable[[dict[str, Any]], None] | None = None,
    defaults: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> Body:
    """The body as :func:`simserve.server.protocol.parse` reads it, or what was ``given`` in its place.

    Raises :class:`ApiError` (400), also for another content type than JSON's.
    """
    if request.content_type != "application/json":
        raise ApiError("The request must have the header Content-Type: application/json.")
    raw = await request.read()
    is_long = len(raw) > INLINE_BODY_BYTES or (given is not None and len(given.get("messages", ())) > INLINE_MESSAGES)
    body = raw if given is None else dict(given)
    if is_long:
        return await asyncio.to_thread(parse, body, kind, refuse, defaults)
    return parse(body, kind, refuse, defaults)
