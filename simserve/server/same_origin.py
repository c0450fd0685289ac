"""Which pages may do something here: this server's own."""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import web

from simserve.server.errors import ApiError


def check_same_origin(request: web.Request) -> None:
    """Refuse (403) what a page of another site asks for in its visitor's name."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise ApiError("A page of another site may not do that.", status=403)
