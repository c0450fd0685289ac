"""Requests as bytes, made before the clock starts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from simserve.bench.wire.address import Address
from simserve.errors import ConfigError

REQUEST_ID = "x-request-id"


@dataclass(frozen=True)
class Body:
    """What is posted and how it is encoded."""

    content_type: str
    content: bytes


@dataclass(frozen=True)
class Request:
    """One request, ready to be sent: everything but its id, which comes between ``head`` and ``content``."""

    index: int
    head: bytes
    content: bytes

    def with_id(self, request_id: str) -> bytes:
        """The bytes to send."""
        return b"%b%b\r\n\r\n%b" % (self.head, request_id.encode("latin-1"), self.content)


def encode_request(index: int, address: Address, path: str, headers: Mapping[str, str], body: Body) -> Request:
    """``POST path`` with ``body``; ``headers`` replace the standard ones of the same name, whatever their case.

    Raises :class:`ConfigError` for a header that HTTP cannot carry.
    """
    standard = {
        "Host": address.authority,
        "User-Agent": "simserve-bench",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Content-Type": body.content_type,
        "Content-Length": str(len(body.content)),
    }
    given = {name.lower() for name in headers}
    lines = [f"POST {address.target(path)} HTTP/1.1"]
    fields = {name: value for name, value in standard.items() if name.lower() not in given} | dict(headers)
    lines += [_header(name, value) for name, value in fields.items() if name.lower() != REQUEST_ID]
    head = "\r\n".join([*lines, f"{REQUEST_ID}: "])
    return Request(index, head.encode("latin-1"), body.content)


def _header(name: str, value: str) -> str:
    line = f"{name}: {value}"
    if not name or any(sign in line for sign in "\r\n\0") or ":" in name or " " in name or not _is_latin(line):
        raise ConfigError(f"{name!r}: {value!r} is not an HTTP header; give --header NAME=VALUE in plain letters")
    return line


def _is_latin(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def multipart(fields: Mapping[str, str], file_name: str, file_type: str, file: bytes) -> Body:
    """A form with text ``fields`` and one ``file``, as a browser would post it."""
    boundary = f"simserve{secrets.token_hex(16)}".encode()
    parts = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (boundary, name.encode(), value.encode())
        for name, value in fields.items()
    ]
    disposition = f'Content-Disposition: form-data; name="file"; filename="{file_name}"\r\nContent-Type: {file_type}'
    parts.append(b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, disposition.encode(), file))
    parts.append(b"--%b--\r\n" % boundary)
    return Body(f"multipart/form-data; boundary={boundary.decode()}", b"".join(parts))
