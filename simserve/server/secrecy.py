"""Keys that people put where they do not belong, such as a path, are not said again, and not logged."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, unquote

from aiohttp import web

from simserve.server.settings import AuthSection

KEY = re.compile(r"(?<![A-Za-z])sk-[\w.-]+|eyJ[\w-]{8,}(?:\.[\w-]*)*")
"""What OpenAI's keys, and ours, look like, and the JSON web tokens that are in ours."""

STRUCK_OUT = "***"

PART = 8
"""So many characters of a key give something of it away; shorter ones stand in ordinary words."""

SIGNATURE = re.compile(r"(?<![\w-])[\w-]{43}(?![\w-])")
"""What the last part of a signed token looks like: 32 bytes of HS256 in base64url."""

WORD = re.compile(r"[^/?&=#;,\"'`\s]+")

MOST_DECODINGS = 3
"""How often somebody may have percent-encoded a key on its way into a path."""


def without_keys(text: str) -> str:
    """``text`` with ``sk-...`` for each key that looks like one."""
    return KEY.sub("sk-...", text) if "sk-" in text or "eyJ" in text else text


class Secrets:
    """What the settings hold that nobody is to read in a log: keys, and the secret that signs tokens.

    Of keys that the settings give as digests nothing but the digest is known: such a key is found as a whole word.
    """

    def __init__(self, auth: AuthSection | None = None) -> None:
        keys = [] if auth is None else [one.key.get_secret_value() for one in auth.keys]
        signing = "" if auth is None or auth.secret_key is None else auth.secret_key.get_secret_value()
        plain = [key for key in keys if not key.startswith("sha256:")]
        long = [secret for secret in (*plain, signing) if len(secret) >= PART]
        self._signs = bool(signing)
        self._digests = {key.removeprefix("sha256:").lower() for key in keys if key not in plain}
        self._digests |= {_digest(key) for key in plain}
        self._parts = {secret[at : at + PART] for secret in long for at in range(len(secret) - PART + 1)}
        spellings = {spelled for secret in long for spelled in _spellings(secret)}
        whole = [re.escape(secret) for secret in sorted(spellings, key=len, reverse=True)]
        self._whole = re.compile("|".join(whole)) if whole else None

    def in_line(self, line: str) -> str:
        """A line of a log without whole keys in it, as quick as can be."""
        line = without_keys(line)
        return line if self._whole is None else self._whole.sub(STRUCK_OUT, line)

    def without(self, text: str) -> str:
        """``text``, which a client made, without keys and without parts of them."""
        text = without_keys(text)
        if not self._digests and not self._parts:
            return text
        decoded = text
        for _ in range(MOST_DECODINGS):
            if "%" not in decoded:
                break
            decoded = unquote(decoded)
            if self._struck_out(decoded) != decoded:
                return STRUCK_OUT
        return self._struck_out(text)

    def are_in(self, text: str) -> bool:
        """Whether ``text`` has a key or a part of one in it."""
        return self.without(text) != text

    def _struck_out(self, text: str) -> str:
        if self._signs:
            text = SIGNATURE.sub(STRUCK_OUT, text)
        for start, end in reversed([*self._found(text)]):
            text = text[:start] + STRUCK_OUT + text[end:]
        return WORD.sub(lambda word: STRUCK_OUT if _digest(word[0]) in self._digests else word[0], text)

    def _found(self, text: str) -> Iterator[tuple[int, int]]:
        """The stretches of ``text`` that are parts of secrets, from the first to the last."""
        start = end = -1
        for at in range(len(text) - PART + 1):
            if text[at : at + PART] not in self._parts:
                continue
            if at > end >= 0:
                yield start, end
                start = at
            elif start < 0:
                start = at
            end = at + PART
        if end >= 0:
            yield start, end


NONE = Secrets()

SECRETS: web.AppKey[Secrets] = web.AppKey("secrets", Secrets)
"""Where handlers find them."""


def _spellings(secret: str) -> set[str]:
    """A secret as it is, as JSON has it, and as it stands in a URL."""
    return {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], quote(secret, safe="")}


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
