"""Questions beside the measurement: which models, are you well, how many tokens. Plain and blocking."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from simserve.bench.wire.address import Address
from simserve.errors import ServerError

TIMEOUT_S = 30.0


class Told(NamedTuple):
    """Status and body of an answer."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON, or None if it is none."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


def ask(
    address: Address,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    method: str | None = None,
    insecure: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Told:
    """``GET path``, or ``POST`` it if there is a ``body``, which goes as JSON.

    Raises :class:`ServerError` if there is no answer; any status is one.
    """
    content = None if body is None else orjson.dumps(body)
    sent = dict(headers or {}) | ({} if content is None else {"Content-Type": "application/json"})
    connection = _connection(address, insecure, timeout_s)
    try:
        connection.request(method or ("GET" if content is None else "POST"), address.target(path), content, sent)
        response = connection.getresponse()
        return Told(response.status, response.read())
    except ConnectionRefusedError:
        raise ServerError(
            f"nothing listens at {address.url}; start the server, or give its address with --base-url"
        ) from None
    except socket.gaierror:
        raise ServerError(f"there is no host {address.host}; check --base-url, or --host") from None
    except TimeoutError:
        raise ServerError(f"{address.url}{path} did not answer within {timeout_s:g} s") from None
    except ssl.SSLError as error:
        raise ServerError(
            f"TLS with {address.url} failed ({error.reason}); --insecure accepts any certificate"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"{address.url}{path} gave no answer ({error or type(error).__name__})") from None
    finally:
        connection.close()


def _connection(address: Address, insecure: bool, timeout_s: float) -> http.client.HTTPConnection:
    if not address.is_tls:
        return http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(address.host, address.port, timeout=timeout_s, context=context)
