"""Which permission each path needs."""

from __future__ import annotations

from collections.abc import Mapping

from simserve.config import Permission

BY_PATH: Mapping[str, Permission] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/models": "models",
    "/status": "models",
    "/v1/load_lora_adapter": "admin",
    "/v1/unload_lora_adapter": "admin",
    "/admin": "admin",
}
"""A path and all below it."""

LIMITED: frozenset[Permission] = frozenset(("chat", "completions", "embeddings"))
"""Permissions for what costs: requests that need them count against a key's limits."""


def permission_for(path: str) -> Permission:
    """What a key needs for ``path``: what nobody has listed is for administrators."""
    listed = [known for known in BY_PATH if path == known or path.startswith(f"{known}/")]
    return BY_PATH[max(listed, key=len)] if listed else "admin"
