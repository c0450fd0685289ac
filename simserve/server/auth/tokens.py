"""Keys that carry what they allow, signed (JWT, HS256): whoever has the secret can make them and check them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jwt

from simserve.config import Permission
from simserve.errors import SimServeError

PREFIX = "sk-"
"""What OpenAI's keys begin with, and so what people and secret scanners look for."""

ALGORITHM = "HS256"
ISSUER = "simserve"


class TokenError(SimServeError):
    """A token that does not count; the sentence does not say what is in it."""


@dataclass(frozen=True)
class Token:
    """What a token says. Times are Unix times in whole seconds; one that does not expire has None."""

    id: str
    name: str
    permissions: Sequence[Permission]
    created_s: int
    expires_s: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @property
    def expired(self) -> bool:
        return self.expires_s is not None and self.expires_s <= time.time()


def sign(token: Token, secret: str) -> str:
    """The key to hand out."""
    claims = {name: value for name, value in asdict(token).items() if value is not None}
    registered = {"iss": ISSUER, "jti": claims.pop("id"), "iat": claims.pop("created_s")}
    if token.expires_s is not None:
        registered["exp"] = claims.pop("expires_s")
    return PREFIX + jwt.encode(claims | registered, secret, algorithm=ALGORITHM)


def read_token(key: str, secret: str) -> Token:
    """What ``key`` says; raises :class:`TokenError` if it is not signed with ``secret``, or has expired."""
    try:
        claims: dict[str, Any] = jwt.decode(
            key.removeprefix(PREFIX),
            secret,
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            options={"require": ["iss", "jti", "iat"]},
        )
    except jwt.ExpiredSignatureError:
        raise TokenError("The key has expired; ask for a new one.") from None
    except jwt.InvalidTokenError:
        raise TokenError("The key is not valid here.") from None
    return Token(
        id=claims["jti"],
        name=claims["name"],
        permissions=claims["permissions"],
        created_s=claims["iat"],
        expires_s=claims.get("exp"),
        requests_per_minute=claims.get("requests_per_minute"),
        tokens_per_minute=claims.get("tokens_per_minute"),
    )
