"""Listening sockets that notice when a peer is gone."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress

from simserve.errors import ConfigError

KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 120_000}
"""A connection whose other side says nothing is asked after a minute, and given up two minutes after it last answered
(the last figure is milliseconds). Sockets that come out of a listening one inherit this; not every system has all."""


def bound_sockets(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Sockets bound to every address of ``host``, all on the same port; port 0 takes any free one.

    ``shared`` lets other processes of this user bind the same port and take their part of the connections.
    Raises :class:`ConfigError` if that is not possible.
    """
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in _addresses(host, port):
            at = (address[0], sockets[0].getsockname()[1], *address[2:]) if sockets else address
            sockets.append(_bound(family, kind, protocol, at, shared=shared))
    except OSError as error:
        for one in sockets:
            one.close()
        raise _cannot_listen(error, host, port) from None
    return sockets


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        raise ConfigError(f"{host} is not an address of this machine; give another --host") from None
    return list(dict.fromkeys(found))


def _bound(family: int, kind: int, protocol: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEP_ALIVE.items():
            with suppress(AttributeError):
                bound.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        bound.bind(address)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def _cannot_listen(error: OSError, host: str, port: int) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"port {port} is already in use; stop what listens there or give another --port")
    if error.errno == errno.EACCES:
        return ConfigError(f"port {port} needs more rights than you have; give a --port above 1023")
    reason = os.strerror(error.errno or 0)
    return ConfigError(f"cannot listen on {host}:{port} ({reason}); give another --host or --port")
