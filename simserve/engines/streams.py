"""Where the engine leaves tokens: handed on at once to a sink, or kept in a small mailbox until somebody takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from simserve.engines.base import RequestTiming, TokenEvent, TokenLogprob


class TokenSink(Protocol):
    """Takes a sequence's tokens the moment they come, within the engine's own pass: be quick, and never raise."""

    def step(self, tokens: int) -> None:
        """``tokens`` more have come, and there is nothing to say about them but their number."""
        ...

    def prepare(self) -> None:
        """Nothing is due: make ready what the next token will need."""
        ...

    def event(self, event: TokenEvent) -> None:
        """Tokens of which there is more to say, or the end, which comes last."""
        ...

    def failed(self, error: Exception) -> None:
        """There will be no more: ``error`` is what the client is to be told."""
        ...


class TokenStream:
    """Tokens of one sequence: for a sink, which is called, or as an async iterator.

    Who iterates and does not keep up gets the tokens that wait merged into one event, so that a slow reader costs a
    mailbox of one event and nobody else's time. ``on_close`` is called once if the stream is closed before its end.
    """

    __slots__ = (
        "_changed", "_ended", "_error", "_failure", "_finish_reason", "_logprobs", "_merging", "_on_close",
        "_produced", "_sink", "_stop_reason", "_taken", "_text", "_time_s", "_timing", "_token_ids",
    )  # fmt: skip

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._on_close = on_close
        self._sink: TokenSink | None = None
        self._merging = False
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
        self._failure: Exception | None = None
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
        if self._ended:
            return  # somebody closed it, and a step that was under way gave it a token
        self._time_s = time_s
        if self._sink is not None and not token_ids and not text:
            self._produced += 1
            self._taken += 1
            self._sink.step(1)
            return
        self._produced += len(token_ids) or 1
        self._token_ids += token_ids
        self._logprobs += logprobs
        if text:
            self._text.append(text)
        self._tell()

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
        if self._ended:
            return
        self._finish_reason = reason
        self._time_s = time_s
        self._timing = timing
        self._text.append(text)
        self._stop_reason = stop_reason
        self._error = error
        self._tell()

    def fail(self, error: Exception) -> None:
        """No more tokens will come: who listens gets ``error`` itself."""
        self._failure = error
        self.finish("error", self._time_s, error=str(error))

    @property
    def produced_tokens(self) -> int:
        """Tokens that the engine has left here so far."""
        return self._produced

    def deliver_to(self, sink: TokenSink) -> None:
        """Hand everything to ``sink`` from now on, first what has come already; nobody may iterate then."""
        self._sink = sink
        if self._changed.is_set():
            self._tell()

    def prepare(self) -> None:
        """Nothing is due, and the next step will bring one more token: see :meth:`TokenSink.prepare`."""
        if self._sink is not None and not self._ended:
            self._sink.prepare()

    def merge_all(self) -> None:
        """Keep what comes for one event at the end."""
        self._merging = True
        if self._finish_reason is None:
            self._changed.clear()

    def _tell(self) -> None:
        if self._sink is not None:
            event = self._take()
            if self._failure is not None:
                self._sink.failed(self._failure)
            else:
                self._sink.event(event)
        elif not self._merging or self._finish_reason is not None:
            self._changed.set()

    def __aiter__(self) -> TokenStream:
        return self

    async def __anext__(self) -> TokenEvent:
        if self._ended:
            raise StopAsyncIteration
        await self._changed.wait()
        self._changed.clear()
        event = self._take()
        if self._failure is not None:
            raise self._failure
        return event

    def _take(self) -> TokenEvent:
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
