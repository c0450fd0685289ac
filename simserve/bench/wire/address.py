"""Where a server is: the parts of a base URL that a connection and a request need."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from simserve.errors import ConfigError

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """``scheme`` is http or https; ``prefix`` is the path of the base URL without a slash at its end."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def is_tls(self) -> bool:
        """Whether a connection must speak TLS."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """What belongs into the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL again."""
        return f"{self.scheme}://{self.authority}{self.prefix}"

    def target(self, path: str) -> str:
        """``path`` as a request to this server names it.

        A base URL that already ends in the first part of ``path``, as OpenAI's ``https://api.openai.com/v1`` does with
        ``/v1/completions``, does not say it twice.
        """
        first = "/" + path.lstrip("/").partition("/")[0]
        return self.prefix.removesuffix(first) + "/" + path.lstrip("/")


def parse_address(url: str) -> Address:
    """Read a base URL; raises :class:`ConfigError` for what is none."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in PORTS or not parts.hostname or port == -1 or parts.query or parts.fragment:
        raise ConfigError(f"'{url}' is not the address of a server; give something like http://127.0.0.1:8000")
    return Address(parts.scheme, parts.hostname, port or PORTS[parts.scheme], parts.path.rstrip("/"))
