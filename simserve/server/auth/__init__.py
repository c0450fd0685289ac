"""Who asks, and what they may ask for.

``keyring`` knows a key when it sees one, ``tokens`` are keys that were signed, ``store`` lists and revokes them,
``permissions`` say which key opens what, ``guard`` is the door. Keys are compared, never kept in the clear or logged.
"""

from __future__ import annotations

from simserve.server.auth.caller import Caller
from simserve.server.auth.guard import caller_of, guard, matched_path, warn_if_open
from simserve.server.auth.keyring import KeyRing
from simserve.server.auth.store import TokenStore
from simserve.server.auth.tokens import Token, read_token, sign

__all__ = [
    "Caller",
    "KeyRing",
    "Token",
    "TokenStore",
    "caller_of",
    "guard",
    "matched_path",
    "read_token",
    "sign",
    "warn_if_open",
]
