"""The aiohttp application: routes, middlewares and limits, over models that somebody else made."""

from __future__ import annotations

from aiohttp import web

from simserve.server.adapter_routes import AdapterRoutes
from simserve.server.auth import guard
from simserve.server.errors import errors_as_objects
from simserve.server.limits import Charging, Rates, say_what_is_left
from simserve.server.models import ModelPool
from simserve.server.request_ids import request_ids, say_request_id
from simserve.server.routes import Routes
from simserve.server.settings import Settings


def build_app(models: ModelPool, settings: Settings) -> web.Application:
    """An application that serves ``models``, which are to be started before the first request.

    Run it with ``handler_cancellation=True``: that is how a client that hung up reaches the engine.
    """
    charging = Charging(Rates())
    app = web.Application(
        client_max_size=settings.server.max_body_size,
        middlewares=[request_ids, errors_as_objects, guard(settings.auth), charging.middleware()],
    )
    app.add_routes(Routes(models, settings.inference, charging).table())
    app.add_routes(AdapterRoutes(models).table())
    app.on_response_prepare.extend((say_request_id, say_what_is_left))
    return app
