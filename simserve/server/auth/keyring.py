"""Knows keys by their digests: those in the settings, and tokens that were signed."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence

from simserve.errors import ConfigError
from simserve.server.auth.caller import Caller
from simserve.server.auth.store import TokenStore
from simserve.server.auth.tokens import TokenError, read_token
from simserve.server.settings import AuthSection

DIGEST_PREFIX = "sha256:"


class KeyRing:
    """The keys that count; raises :class:`ConfigError` for two that are the same, or a digest that is none."""

    def __init__(self, auth: AuthSection) -> None:
        self._auth = auth
        self._secret = auth.secret_key.get_secret_value() if auth.secret_key else None
        self._store = TokenStore(auth.store) if auth.store else None
        if self._store:
            self._store.entries()
        digests = [_digest_in(entry.key.get_secret_value(), at) for at, entry in enumerate(auth.keys)]
        if len(set(digests)) < len(digests):
            raise ConfigError("auth.keys has a key twice; leave one of them")
        self._keys: Sequence[tuple[bytes, Caller]] = [
            (
                digest,
                Caller(
                    f"key-{at}",
                    frozenset(entry.permissions),
                    entry.requests_per_minute or auth.requests_per_minute,
                    entry.tokens_per_minute or auth.tokens_per_minute,
                ),
            )
            for at, (digest, entry) in enumerate(zip(digests, auth.keys, strict=True))
        ]

    def caller(self, key: str) -> Caller:
        """Whose key this is; raises :class:`TokenError` if it does not count.

        Every digest is compared, each in constant time: how long it takes tells nothing about the keys.
        """
        shown = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = [caller for digest, caller in self._keys if hmac.compare_digest(digest, shown)]
        if found:
            return found[0]
        if self._secret is None:
            raise TokenError("The key is not valid here.")
        token = read_token(key, self._secret)
        if self._store and not self._store.counts(token.id):
            raise TokenError("The key was revoked; ask for a new one.")
        return Caller(
            token.id,
            frozenset(token.permissions),
            token.requests_per_minute or self._auth.requests_per_minute,
            token.tokens_per_minute or self._auth.tokens_per_minute,
        )


def _digest_in(key: str, at: int) -> bytes:
    if not key.startswith(DIGEST_PREFIX):
        if not key:
            raise ConfigError(f"auth.keys.{at} is empty; leave it out")
        return hashlib.sha256(key.encode()).digest()
    digest = key.removeprefix(DIGEST_PREFIX)
    if not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise ConfigError(f"auth.keys.{at} is not a SHA-256 digest: give 64 hexadecimal digits after {DIGEST_PREFIX}")
    return bytes.fromhex(digest)
