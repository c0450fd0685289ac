"""The aiohttp application: routes, middlewares and limits, over an engine that somebody else made."""

from __future__ import annotations

from aiohttp import web

from simserve.server.dashboard.pages import Dashboard
from simserve.server.errors import errors_as_objects
from simserve.server.operations import Operations
from simserve.server.request_ids import request_ids, say_request_id
from simserve.server.routes import Routes, Service
from simserve.server.wire import cut_off_stalled_readers

MAX_BODY_BYTES = 32 * 1024 * 1024


def build_app(service: Service, *, max_body_bytes: int = MAX_BODY_BYTES) -> web.Application:
    """An application that serves ``service``; the engine starts before the first request and stops after the last.

    Run it with ``handler_cancellation=True``: that is how a client that hung up reaches the engine.
    """
    operations = Operations(service)
    app = web.Application(
        client_max_size=max_body_bytes, middlewares=[operations.http.middleware, request_ids, errors_as_objects]
    )
    app.add_routes(Routes(service).table())
    app.add_routes(operations.table())
    dashboard = Dashboard(service.telemetry.feed)
    app.add_routes(dashboard.table())
    app.on_shutdown.append(dashboard.close)
    app.on_response_prepare.extend([say_request_id, cut_off_stalled_readers])
    return app
