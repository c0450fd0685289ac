"""The aiohttp application: routes, middlewares and limits, over models that somebody else made."""

from __future__ import annotations

from aiohttp import web

from simserve.server.adapter_routes import AdapterRoutes
from simserve.server.admin import AdminRoutes
from simserve.server.auth import guard
from simserve.server.errors import errors_as_objects
from simserve.server.failures import Failures
from simserve.server.limits import (
    Charging,
    Counter,
    Drain,
    Rates,
    RequestLimits,
    body_in_time,
    say_what_is_left,
    time_limit,
)
from simserve.server.logs import access_log
from simserve.server.models import Models
from simserve.server.request_ids import request_ids, say_request_id
from simserve.server.routes import Routes
from simserve.server.settings import Settings


def build_app(
    models: Models,
    settings: Settings,
    drain: Drain | None = None,
    counter: Counter | None = None,
    failures: Failures | None = None,
) -> web.Application:
    """An application that serves ``models``, which are to be started before the first request.

    ``drain`` counts those inside, ``counter`` what keys may use, ``failures`` fails some; each is made here if it is
    not given. Run it with ``handler_cancellation=True``: that is how a client that hung up reaches
    the engine.
    """
    server, charging = settings.server, Charging(counter or Rates())
    drain, failures = drain or Drain(), failures or Failures(settings.failures)
    app = web.Application(
        client_max_size=server.max_body_size,
        middlewares=[  # from the outside to the inside
            request_ids,
            *([access_log] if settings.logging.access else []),
            errors_as_objects,
            drain.middleware,
            guard(settings.auth),
            charging.middleware(),
            time_limit(server.timeout),
            body_in_time(server.read_timeout),
            failures.middleware,
        ],
    )
    limits = RequestLimits(settings.inference, charging, drain)
    app.add_routes(Routes(models, limits).table())
    app.add_routes(AdapterRoutes(models).table())
    app.add_routes(AdminRoutes(models, failures).table())
    app.on_response_prepare.extend((say_request_id, say_what_is_left))
    return app
