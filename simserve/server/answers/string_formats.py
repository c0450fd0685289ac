"""Strings of the formats that JSON schemas name."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping

WORDS = (
    *("river", "harbour", "lantern", "meadow", "signal", "ember", "willow", "copper", "anchor", "summit", "garden"),
    *("canyon", "mirror", "pebble", "velvet", "orchard", "compass", "ripple", "thunder", "saffron", "beacon"),
)


def words(rng: random.Random, count: int) -> str:
    """``count`` plain words."""
    return " ".join(rng.choice(WORDS) for _ in range(count))


def _date(rng: random.Random) -> str:
    return f"{rng.randint(1990, 2035)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _time(rng: random.Random) -> str:
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}Z"


def _host(rng: random.Random) -> str:
    return f"{rng.choice(WORDS)}.example.com"


def _ipv6(rng: random.Random) -> str:
    return ":".join(["2001", "db8", *(f"{rng.randint(0, 0xFFFF):x}" for _ in range(6))])


FORMATS: Mapping[str, Callable[[random.Random], str]] = {
    "date": _date,
    "time": _time,
    "date-time": lambda rng: f"{_date(rng)}T{_time(rng)}",
    "duration": lambda rng: f"P{rng.randint(1, 30)}DT{rng.randint(1, 23)}H",
    "email": lambda rng: f"{rng.choice(WORDS)}@{_host(rng)}",
    "idn-email": lambda rng: f"{rng.choice(WORDS)}@{_host(rng)}",
    "hostname": _host,
    "idn-hostname": _host,
    "ipv4": lambda rng: f"192.0.2.{rng.randint(1, 254)}",
    "ipv6": _ipv6,
    "uri": lambda rng: f"https://{_host(rng)}/{rng.choice(WORDS)}",
    "uri-reference": lambda rng: f"/{rng.choice(WORDS)}",
    "iri": lambda rng: f"https://{_host(rng)}/{rng.choice(WORDS)}",
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    "json-pointer": lambda rng: f"/{rng.choice(WORDS)}",
    "regex": lambda rng: f"^{rng.choice(WORDS)}$",
}
