"""Which pages of other sites may use the API from their visitors' browsers: those that the settings name."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from simserve.server.auth.guard import matched_path
from simserve.server.auth.permissions import permission_for
from simserve.server.errors import Handler, Middleware

ANY = "*"
REMEMBERED_S = 600


class CrossOrigin:
    """Tells browsers that pages of ``origins`` may ask and read what comes; nothing that is for administrators.

    Made only where there are any, so that no other server does more for it.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = ANY in origins
        self._origins = frozenset(origins)

    def middleware(self) -> Middleware:
        """Answers what a browser asks before it sends a request (OPTIONS), for which it shows no key."""

        @web.middleware
        async def say_beforehand(request: web.Request, handler: Handler) -> web.StreamResponse:
            wanted = request.headers.get("Access-Control-Request-Method")
            if request.method != "OPTIONS" or wanted is None or self._allowed(request) is None:
                return await handler(request)
            headers = {
                "Access-Control-Allow-Methods": "GET, POST, DELETE",
                "Access-Control-Allow-Headers": request.headers.get("Access-Control-Request-Headers", ANY),
                "Access-Control-Max-Age": str(REMEMBERED_S),
            }
            return web.Response(status=204, headers=headers)

        return say_beforehand

    async def say(self, request: web.Request, response: web.StreamResponse) -> None:
        """Put it on every response, streamed or not (an ``on_response_prepare`` signal)."""
        allowed = self._allowed(request)
        if allowed is not None:
            response.headers["Access-Control-Allow-Origin"] = allowed
            response.headers["Access-Control-Expose-Headers"] = ANY
        if not self._any:
            response.headers["Vary"] = "Origin"

    def _allowed(self, request: web.Request) -> str | None:
        """The origin that the response may name; None for a page that may not, and for no page."""
        origin = request.headers.get("Origin")
        if origin is None or permission_for(matched_path(request)) == "admin":
            return None
        if self._any:
            return ANY
        return origin if origin in self._origins else None
