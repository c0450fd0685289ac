"""How long a request may take, and how long its client may take to send it."""

from __future__ import annotations

import asyncio

from aiohttp import web

from simserve.server.errors import ApiError, Handler, Middleware, timed_out

TIMER: web.RequestKey[asyncio.Timeout] = web.RequestKey("timer", asyncio.Timeout)


def time_limit(timeout_s: float) -> Middleware:
    """A middleware that ends with 504 what takes longer than ``timeout_s``."""

    @web.middleware
    async def in_time(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            async with asyncio.timeout(timeout_s) as timer:
                request[TIMER] = timer
                return await handler(request)
        except TimeoutError:
            raise timed_out() from None

    return in_time


def taken_deadline(request: web.Request) -> float | None:
    """When ``request`` has to be done, on the event loop's clock; from now on the caller sees to that.

    An event stream has sent its status before it is late: it must say so in its own way.
    """
    timer = request.get(TIMER)
    if timer is None:
        return None
    when_s: float | None = timer.when()
    timer.reschedule(None)
    return when_s


def body_in_time(timeout_s: float) -> Middleware:
    """A middleware that reads the whole body first, and ends with 408 what is sent too slowly."""

    @web.middleware
    async def read_first(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.can_read_body and not request.content.is_eof():  # usually all of it is there already
            try:
                async with asyncio.timeout(timeout_s):
                    await request.read()
            except TimeoutError:
                raise ApiError(
                    f"The request's body was not there after {timeout_s:g} s; send it faster.",
                    status=408,
                    headers={"Connection": "close"},
                ) from None
        return await handler(request)

    return read_first
