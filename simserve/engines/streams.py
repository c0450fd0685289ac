"""Where the engine leaves tokens and a handler takes them: one small mailbox per sequence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from simserve.engines.base import RequestTiming, TokenEvent


class TokenStream:
    """Tokens of one sequence, as an async iterator.

    Tokens that nobody has taken yet are merged into one event, so that a slow reader costs a mailbox of one event and
    nobody else's time. ``on_close`` is called once if the stream is closed before its end.
    """

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._on_close = on_close
        self._taken = 0
        self._produced = 0
        self._time_s = 0.0
        self._finish_reason: str | None = None
        self._timing: RequestTiming | None = None
        self._ended = False
        self._changed = asyncio.Event()

    def push(self, time_s: float) -> None:
        """One more token came out of the step that ended at ``time_s``."""
        self._produced += 1
        self._time_s = time_s
        self._changed.set()

    def finish(self, reason: str, time_s: float, timing: RequestTiming | None = None) -> None:
        """No more tokens will come."""
        self._finish_reason = reason
        self._time_s = time_s
        self._timing = timing
        self._changed.set()

    def __aiter__(self) -> TokenStream:
        return self

    async def __anext__(self) -> TokenEvent:
        if self._ended:
            raise StopAsyncIteration
        await self._changed.wait()
        self._changed.clear()
        index, self._taken = self._taken, self._produced
        self._ended = self._finish_reason is not None
        return TokenEvent(index, self._taken - index, self._time_s, self._finish_reason, self._timing)

    async def aclose(self) -> None:
        """Stop listening; aborts the sequence if it has not ended."""
        if not self._ended:
            self._ended = True
            if self._finish_reason is None:
                self._on_close()
