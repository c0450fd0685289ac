"""How many requests and tokens each key may use in a minute, told in OpenAI's headers."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from simserve.server.auth import Caller
from simserve.server.errors import ApiError
from simserve.server.limits.buckets import Bucket

Kind = Literal["requests", "tokens"]


@dataclass(frozen=True)
class Verdict:
    """Whether there was enough, and the headers that say what is left; ``wait_s`` is how long until there is."""

    granted: bool
    headers: Mapping[str, str]
    wait_s: float = 0.0


@dataclass
class Rates:
    """The buckets of all keys that have a limit, by the caller's id."""

    _buckets: dict[tuple[str, Kind], Bucket] = field(default_factory=dict)

    async def take(self, caller: Caller, kind: Kind, count: int) -> Verdict:
        """Count ``count`` requests or tokens against the caller's limit, if it has one."""
        now_s = time.monotonic()
        bucket = self._bucket(caller, kind, now_s)
        granted = bucket is None or bucket.take(count, now_s)
        wait_s = 0.0 if granted or bucket is None else bucket.seconds_until(count, now_s)
        return Verdict(granted, self._headers(caller, now_s), wait_s)

    async def give_back(self, caller: Caller, tokens: int) -> None:
        """Tokens that were counted and then not made."""
        now_s = time.monotonic()
        bucket = self._bucket(caller, "tokens", now_s)
        if bucket:
            bucket.give_back(tokens, now_s)

    def _bucket(self, caller: Caller, kind: Kind, now_s: float) -> Bucket | None:
        limit = caller.requests_per_minute if kind == "requests" else caller.tokens_per_minute
        if limit is None:
            return None
        bucket = self._buckets.get((caller.id, kind))
        if bucket is None or bucket.limit != limit:
            bucket = self._buckets[caller.id, kind] = Bucket.full(limit, now_s)
        return bucket

    def _headers(self, caller: Caller, now_s: float) -> dict[str, str]:
        headers = {}
        for kind in ("requests", "tokens"):
            bucket = self._bucket(caller, kind, now_s)
            if bucket:
                reset_s = bucket.seconds_until(bucket.limit, now_s)
                headers[f"x-ratelimit-limit-{kind}"] = str(bucket.limit)
                headers[f"x-ratelimit-remaining-{kind}"] = str(math.floor(bucket.level))
                headers[f"x-ratelimit-reset-{kind}"] = duration(reset_s)
        return headers


def too_many(kind: Kind, count: int, verdict: Verdict) -> ApiError:
    """429, with the time after which it is worth while to try again if there is one."""
    headers = dict(verdict.headers)
    limit = headers[f"x-ratelimit-limit-{kind}"]
    if math.isinf(verdict.wait_s):
        message = f"The request needs {count} {kind}, more than this key's limit of {limit} in a minute; ask for less."
    else:
        headers["Retry-After"] = str(max(1, math.ceil(verdict.wait_s)))
        message = f"This key's limit of {limit} {kind} in a minute is reached; try again in {duration(verdict.wait_s)}."
    return ApiError(message, status=429, kind=kind, code="rate_limit_exceeded", headers=headers)


def duration(seconds: float) -> str:
    """As OpenAI writes durations: ``"120ms"``, ``"6.5s"``, ``"1m30s"``, ``"0s"``."""
    millis = math.ceil(seconds * 1000)
    if millis < 1000:
        return f"{millis}ms" if millis else "0s"
    minutes, rest = divmod(millis, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"
