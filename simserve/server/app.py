"""The aiohttp application: routes, middlewares and limits, over models that somebody else made."""

from __future__ import annotations

from aiohttp import web

from simserve.server.adapter_routes import AdapterRoutes
from simserve.server.admin import AdminRoutes
from simserve.server.api_docs.routes import ApiDocs
from simserve.server.auth import guard
from simserve.server.cross_origin import CrossOrigin
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
from simserve.server.models import ModelPool, Models
from simserve.server.operations import Operations, Operator
from simserve.server.request_ids import request_ids, say_request_id
from simserve.server.responses_api.routes import ResponsesRoutes
from simserve.server.responses_api.store import KeptHere, Store
from simserve.server.routes import Routes
from simserve.server.scoring import ScoringRoutes
from simserve.server.secrecy import SECRETS, Secrets
from simserve.server.settings import Settings
from simserve.server.text_routes import TextRoutes
from simserve.server.wire import cut_off_stalled_readers


def build_app(
    models: Models,
    settings: Settings,
    drain: Drain | None = None,
    counter: Counter | None = None,
    failures: Failures | None = None,
    operator: Operator | None = None,
    store: Store | None = None,
) -> web.Application:
    """An application that serves ``models``, which are to be started before the first request.

    ``drain`` counts those inside, ``counter`` what keys may use, ``failures`` fails some, ``operator`` answers who runs
    the server, ``store`` keeps responses; each is made here if it is not given. Run it with
    ``handler_cancellation=True``: that is how a client that hung up reaches the engine.
    """
    server, charging, secrets = settings.server, Charging(counter or Rates()), Secrets(settings.auth)
    pages = CrossOrigin(server.allowed_origins) if server.allowed_origins else None
    drain, failures = drain or Drain(), failures or Failures(settings.failures)
    if operator is None:
        assert isinstance(models, ModelPool), "whose engines are elsewhere has to say who operates them"
        operator = Operations(models, drain)
    app = web.Application(
        client_max_size=server.max_body_size,
        middlewares=[  # from the outside to the inside
            operator.http.middleware,
            request_ids(secrets),
            *([access_log(secrets)] if settings.logging.access else []),
            errors_as_objects(secrets),
            *([] if pages is None else [pages.middleware()]),
            drain.middleware,
            guard(settings.auth),
            charging.middleware(),
            *([] if server.timeout is None else [time_limit(server.timeout)]),
            body_in_time(server.read_timeout),
            failures.middleware,
        ],
    )
    app[SECRETS] = secrets
    limits = RequestLimits(settings.inference, charging, drain)
    answering = (
        Routes(models, limits),
        ResponsesRoutes(models, limits, store or KeptHere()),
        ScoringRoutes(models, limits),
    )
    running = (operator, AdapterRoutes(models), AdminRoutes(models, failures))
    for routes in (*answering, TextRoutes(models), *running, ApiDocs()):
        app.add_routes(routes.table())
    drain.doors.append(operator.close)
    app.on_shutdown.append(lambda _: operator.close())
    if pages is not None:
        app.on_response_prepare.append(pages.say)
    app.on_response_prepare.extend((say_request_id, say_what_is_left, cut_off_stalled_readers))
    return app
