"""One line for each request when it ends: who asked for what, how it went and how long it took.

What clients send is not in it, but for the path and their name for the request; headers and query strings, where keys
could stand, never are, and what looks like a key in a path is struck out.
"""

from __future__ import annotations

import asyncio
import logging
import time

from aiohttp import web

from simserve.server.errors import Handler
from simserve.server.request_ids import current_request_id
from simserve.server.secrecy import without_keys

log = logging.getLogger("simserve.access")

NOTES: web.RequestKey[dict[str, object]] = web.RequestKey("notes", dict)

CLIENT_GONE = 499
"""What nginx calls a request whose client hung up."""


def note(request: web.Request, **fields: object) -> None:
    """Have ``fields`` stand in the line about ``request``."""
    request.setdefault(NOTES, {}).update(fields)


@web.middleware
async def access_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log the request when it has ended, however it does."""
    start_s = time.perf_counter()
    status = CLIENT_GONE
    try:
        response = await handler(request)
        status = response.status
        return response
    except (asyncio.CancelledError, ConnectionError):
        raise
    except BaseException:
        status = 500
        raise
    finally:
        if log.isEnabledFor(logging.INFO):
            _write(request, status, time.perf_counter() - start_s)


def _write(request: web.Request, status: int, duration_s: float) -> None:
    path = _printable(request.path)
    fields: dict[str, object] = {
        "request_id": current_request_id(),
        "remote": request.remote,
        "method": request.method,
        "path": path,
        "status": status,
        "duration_ms": round(duration_s * 1e3, 3),
        **request.get(NOTES, {}),
    }
    notes = " ".join(f"{name}={value}" for name, value in request.get(NOTES, {}).items())
    log.info(
        '%s "%s %s" %d %.1f ms %s%s',
        request.remote,
        request.method,
        path,
        status,
        duration_s * 1e3,
        current_request_id(),
        f" {notes}" if notes else "",
        extra={"fields": fields},
    )


def _printable(path: str) -> str:
    """A path that cannot pretend to be a line of its own, without a key that somebody put into it."""
    if not path.isprintable():
        path = "".join(letter if letter.isprintable() else "?" for letter in path)
    return without_keys(path)
