"""The door: no key or a wrong one is 401, a key that does not open this is 403."""

from __future__ import annotations

import ipaddress
import logging

from aiohttp import web

from simserve.server.auth.caller import Caller
from simserve.server.auth.keyring import KeyRing
from simserve.server.auth.permissions import is_from_here_alone, permission_for
from simserve.server.auth.tokens import TokenError
from simserve.server.errors import ApiError, Handler, Middleware
from simserve.server.settings import AuthSection

log = logging.getLogger("simserve.server")

CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)


def guard(auth: AuthSection) -> Middleware:
    """A middleware that lets in who may; raises :class:`simserve.errors.ConfigError` for keys that cannot be read.

    Where no keys are asked for, what is for administrators answers to clients on this machine alone.
    """
    return _with_keys(KeyRing(auth), frozenset(auth.open_paths)) if auth.on else _admin_from_here_alone


def caller_of(request: web.Request) -> Caller | None:
    """Whose key came with ``request``; None where no keys are asked for."""
    return request.get(CALLER)


def matched_path(request: web.Request) -> str:
    """The path of the route that serves ``request``, as it was registered: no spelling of a path gets around it."""
    resource = request.match_info.route.resource
    return request.path if resource is None else resource.canonical


def warn_if_open(auth: AuthSection, host: str) -> None:
    """Warn loudly if others can reach this server and need no key for it."""
    if not auth.on and not _is_this_machine(host):
        log.warning(
            "WARNING: listening on %s without keys: whoever reaches this machine can use the server. Give --api-key,"
            " set auth.keys in --config, or --host 127.0.0.1",
            host,
        )


def _with_keys(ring: KeyRing, open_paths: frozenset[str]) -> Middleware:
    @web.middleware
    async def ask_for_a_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        path = matched_path(request)
        if path in open_paths:
            return await handler(request)
        try:
            caller = ring.caller(_shown(request))
        except TokenError as error:
            raise _unauthorized(str(error)) from None
        needed = permission_for(path)
        # A path that does not exist is nobody's: who has any key may know.
        if request.match_info.http_exception is None and not caller.may(needed):
            raise ApiError(
                f"This key has no permission for {request.path}; it needs '{needed}'.",
                status=403,
                kind="permission_error",
                code="insufficient_permissions",
            )
        request[CALLER] = caller
        return await handler(request)

    return ask_for_a_key


@web.middleware
async def _admin_from_here_alone(request: web.Request, handler: Handler) -> web.StreamResponse:
    if is_from_here_alone(matched_path(request)) and not _is_this_machine(request.remote or ""):
        raise ApiError(
            f"{request.path} answers to this machine alone while the server asks for no keys; give it one.",
            status=403,
            kind="permission_error",
            code="insufficient_permissions",
        )
    return await handler(request)


def _shown(request: web.Request) -> str:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise _unauthorized("You did not give a key; send the header Authorization: Bearer <key>.")
    return key.strip()


def _unauthorized(message: str) -> ApiError:
    return ApiError(
        message,
        status=401,
        kind="authentication_error",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
