"""Which permission each path needs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from simserve.config import Permission

BY_PATH: Mapping[str, Permission] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "chat",
    "/score": "embeddings",
    "/v1/score": "embeddings",
    "/rerank": "embeddings",
    "/v1/rerank": "embeddings",
    "/v2/rerank": "embeddings",
    "/tokenize": "models",
    "/detokenize": "models",
    "/openapi.json": "models",
    "/docs": "models",
    "/v1/models": "models",
    "/status": "models",
    "/dashboard": "models",
    "/clock": "models",
    "/is_sleeping": "models",
    "/trace": "admin",
    "/sleep": "admin",
    "/wake_up": "admin",
    "/reset_prefix_cache": "admin",
    "/clock/pause": "admin",
    "/clock/start": "admin",
    "/clock/speed": "admin",
    "/cluster": "admin",
    "/v1/load_lora_adapter": "admin",
    "/v1/unload_lora_adapter": "admin",
    "/admin": "admin",
}
"""A path and all below it."""

FROM_HERE = (
    "/admin", "/cluster", "/sleep", "/wake_up", "/reset_prefix_cache", "/clock/pause", "/clock/start", "/clock/speed",
)  # fmt: skip
"""What changes the server, and all below it: for clients on this machine alone while no keys are asked for."""

LIMITED: frozenset[Permission] = frozenset(("chat", "completions", "embeddings"))
"""Permissions for what costs: requests that need them count against a key's limits."""


MOST_PATHS = 256
"""Whose answers are kept: more than there are routes; paths that do not exist may be many."""


@lru_cache(maxsize=MOST_PATHS)
def permission_for(path: str) -> Permission:
    """What a key needs for ``path``: what nobody has listed is for administrators."""
    listed = [known for known in BY_PATH if _is_below(path, known)]
    return BY_PATH[max(listed, key=len)] if listed else "admin"


@lru_cache(maxsize=MOST_PATHS)
def is_from_here_alone(path: str) -> bool:
    """Whether ``path`` answers to this machine alone while no keys are asked for."""
    return any(_is_below(path, known) for known in FROM_HERE)


def _is_below(path: str, known: str) -> bool:
    return path == known or path.startswith(f"{known}/")
