"""Counting what a request costs against the limits of its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from simserve.server.auth import Caller, caller_of, matched_path
from simserve.server.auth.permissions import LIMITED, permission_for
from simserve.server.errors import Handler, Middleware
from simserve.server.limits.rates import Kind, Verdict, too_many

LEFT: web.RequestKey[Mapping[str, str]] = web.RequestKey("what is left", Mapping)


class Counter(Protocol):
    """Counts requests and tokens of all keys; see :class:`simserve.server.limits.rates.Rates`."""

    async def take(self, caller: Caller, kind: Kind, count: int) -> Verdict: ...

    async def give_back(self, caller: Caller, tokens: int) -> None: ...


class Charging:
    """Puts the price of requests on their keys' bills, and what is left into the headers."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def middleware(self) -> Middleware:
        """Counts each request that costs something; raises :class:`ApiError` (429) for one too many."""

        @web.middleware
        async def count_the_request(request: web.Request, handler: Handler) -> web.StreamResponse:
            if permission_for(matched_path(request)) in LIMITED:
                await self._take(request, "requests", 1)
            return await handler(request)

        return count_the_request

    async def tokens(self, request: web.Request, count: int) -> None:
        """Count tokens, of prompt and answer together; raises :class:`ApiError` (429) if there are too few left."""
        await self._take(request, "tokens", count)

    async def give_back(self, request: web.Request, count: int) -> None:
        """Tokens that were counted and then not made."""
        caller = caller_of(request)
        if caller is not None and count > 0:
            await self._counter.give_back(caller, count)

    async def _take(self, request: web.Request, kind: Kind, count: int) -> None:
        caller = caller_of(request)
        if caller is None:
            return
        verdict = await self._counter.take(caller, kind, count)
        request[LEFT] = verdict.headers
        if not verdict.granted:
            raise too_many(kind, count, verdict)


async def say_what_is_left(request: web.Request, response: web.StreamResponse) -> None:
    """Put the limits on every response that they hold for (an ``on_response_prepare`` signal)."""
    response.headers.update(request.get(LEFT, {}))
