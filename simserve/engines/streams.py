"""Where the engine leaves tokens and a handler takes them: one small mailbox per sequence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from simserve.engines.base import RequestTiming, TokenEvent, TokenLogprob


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
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._finish_reason: str | None = None
        self._timing: RequestTiming | None = None
        self._stop_reason: str | int | None = None
        self._error: str | None = None
        self._ended = False
        self._changed = asyncio.Event()

    def push(
        self,
        time_s: float,
        token_ids: Sequence[int] = (),
        text: str = "",
        logprobs: Sequence[TokenLogprob] = (),
    ) -> None:
        """The step that ended at ``time_s`` gave ``token_ids``, or one token that nobody needs to know."""
        self._produced += len(token_ids) or 1
        self._time_s = time_s
        self._token_ids += token_ids
        self._logprobs += logprobs
        if text:
            self._text.append(text)
        self._changed.set()

    def finish(
        self,
        reason: str,
        time_s: float,
        timing: RequestTiming | None = None,
        *,
        text: str = "",
        stop_reason: str | int | None = None,
        error: str | None = None,
    ) -> None:
        """No more tokens will come; ``text`` is what was held back until now."""
        self._finish_reason = reason
        self._time_s = time_s
        self._timing = timing
        self._text.append(text)
        self._stop_reason = stop_reason
        self._error = error
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
        event = TokenEvent(
            index,
            self._taken - index,
            self._time_s,
            self._finish_reason,
            self._timing,
            "".join(self._text),
            tuple(self._token_ids),
            tuple(self._logprobs),
            self._stop_reason,
            self._error,
        )
        self._text, self._token_ids, self._logprobs = [], [], []
        return event

    async def aclose(self) -> None:
        """Stop listening; aborts the sequence if it has not ended."""
        if not self._ended:
            self._ended = True
            if self._finish_reason is None:
                self._on_close()
