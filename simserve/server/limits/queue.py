"""A queue that is full."""

from __future__ import annotations

from simserve.engines.base import Engine
from simserve.server.errors import try_again

RETRY_AFTER_S = 1


def check_room(engine: Engine, max_waiting_requests: int | None) -> None:
    """Raise 503 if as many sequences wait for their first step as may."""
    if max_waiting_requests is not None and engine.status().waiting_requests >= max_waiting_requests:
        raise try_again("The engine is currently busy: its queue is full. Try again in a moment.", RETRY_AFTER_S)
