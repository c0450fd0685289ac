"""Somebody who has shown a key."""

from __future__ import annotations

from dataclasses import dataclass

from simserve.config import Permission


@dataclass(frozen=True)
class Caller:
    """What a key allows. ``id`` tells keys apart and gives nothing of them away; None for a limit is no limit."""

    id: str
    permissions: frozenset[Permission]
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def may(self, permission: Permission) -> bool:
        """Whether the key opens what needs ``permission``."""
        return permission in self.permissions or "all" in self.permissions
