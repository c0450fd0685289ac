"""Errors as OpenAI's error object, whatever went wrong, and the middleware that makes them so."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from aiohttp.web_exceptions import HTTPException, HTTPMethodNotAllowed, HTTPRequestEntityTooLarge

from simserve.errors import EngineError, OverloadedError, ReplicaError, SimServeError
from simserve.server.secrecy import NONE, Secrets

log = logging.getLogger("simserve.server")

__all__ = ["ApiError", "Handler", "Middleware"]

MOST_SAID = 2_000
"""Characters of an error's sentence: a client may have made it longer than anybody reads."""


class ApiError(Exception):
    """A request that is answered with an error object; ``message`` is one sentence for the client's author.

    ``param`` names the offending field and ``code`` is OpenAI's machine-readable word for it, where there is one.
    ``kind`` is the error's type, which follows from ``status`` if it is not given; ``headers`` go with the response.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code
        self.kind = kind or ("invalid_request_error" if status < 500 else "server_error")
        self.headers = headers or {}


def model_not_found(model: str) -> ApiError:
    """404 for a model that this server does not serve."""
    message = f"The model `{model}` does not exist."
    return ApiError(message, status=404, param="model", code="model_not_found")


def try_again(message: str, after_s: float) -> ApiError:
    """503 for a request that may be sent again after some seconds."""
    return ApiError(message, status=503, headers={"Retry-After": str(math.ceil(after_s))})


def timed_out() -> ApiError:
    """504 for a request that took longer than this server allows."""
    return ApiError("The request took longer than this server allows; ask for less.", status=504, code="timeout")


def shutting_down() -> ApiError:
    """503 for a request that the engine gave up because the server stops."""
    return ApiError("The server is shutting down; send the request again later.", status=503)


def engine_failed(why: str | None) -> ApiError:
    """500 for a request that the engine could not go on with."""
    return ApiError(why or "The engine failed; the server's log says why.", status=500)


def error_object(error: ApiError) -> dict[str, str | None]:
    """OpenAI's error object."""
    return {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}


def error_bytes(error: ApiError) -> bytes:
    """The JSON of a body with OpenAI's error object."""
    return orjson.dumps({"error": error_object(error)})


def error_response(error: ApiError, secrets: Secrets = NONE) -> web.Response:
    """The error object as a response with its status; what a client said in it is cut short, and has no keys."""
    error.message = secrets.without(error.message[:MOST_SAID])
    return web.Response(
        status=error.status, body=error_bytes(error), content_type="application/json", headers=error.headers
    )


def errors_as_objects(secrets: Secrets = NONE) -> Middleware:
    """A middleware that answers every failure with an error object; only a client that went away gets nothing."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except HTTPException as error:
            return _from_http(request, error, secrets)
        except ConnectionError:
            raise
        except Exception as error:
            return error_response(as_api_error(error), secrets)

    return answer


def as_api_error(error: Exception) -> ApiError:
    """What the client is told about ``error``; an unforeseen one is logged with its traceback."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, OverloadedError):
        return ApiError(
            _sentence(error), status=429, kind="requests", code="rate_limit_exceeded", headers={"Retry-After": "1"}
        )
    if isinstance(error, ReplicaError):
        return ApiError(_sentence(error), status=503, code="replica_failed", headers={"Retry-After": "1"})
    if isinstance(error, EngineError):
        return ApiError(str(error), status=503)
    if isinstance(error, SimServeError):
        return ApiError(str(error))
    if isinstance(error, TimeoutError):
        return timed_out()
    if isinstance(error, web.RequestPayloadError):
        return ApiError("The request body could not be read; check its length and encoding.")
    log.error("unexpected error while serving a request", exc_info=error)
    return ApiError("The server failed unexpectedly; its log says why.", status=500)


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def _from_http(request: web.Request, error: HTTPException, secrets: Secrets) -> web.StreamResponse:
    if isinstance(error, HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.path} does not accept {request.method}; use {allowed}."
    elif isinstance(error, HTTPRequestEntityTooLarge):
        message = f"The request body is too large: {(error.text or '').lower()}."
    elif error.status == 404:
        message = f"There is nothing at {request.path}; the API lives under /v1."
    else:
        message = f"{HTTPStatus(error.status).phrase}: {error.reason}."
    response = error_response(ApiError(message, status=error.status), secrets)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
