"""One line for each request when it ends: who asked for what, how it went and how long it took.

What clients send is not in it, but for the path and their name for the request; headers and query strings, where keys
could stand, never are, and keys, and parts of them, are struck out of paths.
"""

from __future__ import annotations

import asyncio
import logging
import time

from aiohttp import hdrs, web

from simserve.server.errors import Handler, Middleware
from simserve.server.request_ids import current_request_id
from simserve.server.secrecy import Secrets

log = logging.getLogger("simserve.access")

NOTES: web.RequestKey[dict[str, object]] = web.RequestKey("notes", dict)

CLIENT_GONE = 499
"""What nginx calls a request whose client hung up."""


def note(request: web.Request, **fields: object) -> None:
    """Have ``fields`` stand in the line about ``request``."""
    request.setdefault(NOTES, {}).update(fields)


def access_log(secrets: Secrets) -> Middleware:
    """A middleware that logs each request when it has ended, however it does."""

    @web.middleware
    async def log_it(request: web.Request, handler: Handler) -> web.StreamResponse:
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
                _write(request, secrets, status, time.perf_counter() - start_s)

    return log_it


def _write(request: web.Request, secrets: Secrets, status: int, duration_s: float) -> None:
    # The path of a plain resource is ours; all others have something of the client in them.
    is_ours = isinstance(request.match_info.route.resource, web.PlainResource)
    path = request.path if is_ours else _printable(request.path, secrets)
    method = request.method if request.method in hdrs.METH_ALL else "?"
    fields: dict[str, object] = {
        "request_id": current_request_id(),
        "remote": request.remote,
        "method": method,
        "path": path,
        "status": status,
        "duration_ms": round(duration_s * 1e3, 3),
        **request.get(NOTES, {}),
    }
    notes = " ".join(f"{name}={value}" for name, value in request.get(NOTES, {}).items())
    log.info(
        '%s "%s %s" %d %.1f ms %s%s',
        request.remote,
        method,
        path,
        status,
        duration_s * 1e3,
        current_request_id(),
        f" {notes}" if notes else "",
        extra={"fields": fields},
    )


def _printable(path: str, secrets: Secrets) -> str:
    """A path that cannot pretend to be a line of its own, without a key that somebody put into it."""
    if not path.isprintable():
        path = "".join(letter if letter.isprintable() else "?" for letter in path)
    return secrets.without(path)
