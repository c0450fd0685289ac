"""Failures on purpose: a share of all requests, or the one that asks for it, and a delay like a network's."""

from __future__ import annotations

import asyncio
import random

from aiohttp import web

from simserve.server.auth import matched_path
from simserve.server.auth.permissions import LIMITED, permission_for
from simserve.server.errors import ApiError, Handler
from simserve.server.settings import FailuresSection

HEADER = "X-Return-Error"
MARK = "x-simserve-failure"
"""On every response that failed on purpose."""

RETRY_AFTER = {429: "1", 503: "1"}
"""What real servers say with these."""


class Failures:
    """What fails, as ``settings`` say; they may be replaced while the server runs."""

    def __init__(self, settings: FailuresSection) -> None:
        self.use(settings)

    def use(self, settings: FailuresSection) -> None:
        """Fail as ``settings`` say from now on; draws begin anew."""
        self.settings = settings
        self._random = random.Random(settings.seed)

    async def change(self, settings: FailuresSection) -> None:
        """Fail as ``settings`` say everywhere."""
        self.use(settings)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Holds requests for answers up, and lets some of them fail."""
        if permission_for(matched_path(request)) not in LIMITED:
            return await handler(request)
        settings = self.settings
        if settings.latency_jitter:
            await asyncio.sleep(self._random.uniform(0.0, settings.latency_jitter))
        if settings.on and HEADER in request.headers:
            raise _failure(_asked_for(request.headers[HEADER]))
        if settings.rate and self._random.random() < settings.rate:
            raise _failure(self._random.choice(settings.statuses))
        return await handler(request)


def _asked_for(text: str) -> int:
    if not (len(text) == 3 and text.isascii() and text.isdecimal() and 400 <= int(text) <= 599):
        raise ApiError(f"{HEADER} takes a status from 400 to 599.", param=HEADER)
    return int(text)


def _failure(status: int) -> ApiError:
    headers = {MARK: "injected"} | ({"Retry-After": RETRY_AFTER[status]} if status in RETRY_AFTER else {})
    message = f"This request failed with {status} on purpose: failures are switched on."
    return ApiError(message, status=status, code="injected_failure", headers=headers)
