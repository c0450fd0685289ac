"""Answers token by token: server-sent events at the times the engine's steps end.

The engine's own pass over a step's tokens makes and writes the frames; a handler sleeps from the first token to the
last. What is the same in all frames of a choice is made once, when the stream begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import cycle

from aiohttp import web

from simserve.engines.base import TokenEvent
from simserve.engines.streams import TokenStream
from simserve.server.errors import as_api_error, error_bytes
from simserve.server.plans import Choice, Piece, Plan, merged
from simserve.server.protocol import CompletionFields
from simserve.server.responses import (
    DONE,
    ChunkWriter,
    Envelope,
    closing_frame,
    final_usage,
    timing_metrics,
    usage,
    writer_for,
)
from simserve.server.streams import Ended, check_not_given_up, together
from simserve.server.wire import EventWire

MOST_READY = 8
"""Frames that a stream makes ready at once, which is cheaper than one at a time."""

FIRST_READY = cycle(range(1, MOST_READY + 1))
"""How many the first time: so that streams which began together take turns later."""

SSE_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


async def stream_answer(
    request: web.Request,
    response: web.StreamResponse,
    body: CompletionFields,
    envelope: Envelope,
    plan: Plan,
    streams: Sequence[AsyncIterator[TokenEvent]],
    deadline_s: float | None = None,
) -> Sequence[Ended]:
    """Write the whole event stream to ``response``, which has been prepared; returns how the choices ended.

    A failure after the first byte can no longer be a status, so it becomes an event of its own; so does
    ``deadline_s``, a time on the event loop's clock, when it comes too soon.
    """
    wire = EventWire(request.transport, chunked=response.headers.get("Transfer-Encoding") == "chunked")
    so_far = _UsageSoFar(plan.prompt_tokens) if body.usage_in_every_chunk() else None
    tells = so_far is not None
    writers = [writer_for(envelope, plan, choice, tells_usage=tells) for choice in plan.choices]
    sinks = [ChoiceSink(wire, *pair, so_far) for pair in zip(writers, plan.choices, strict=True)]
    if so_far is not None:
        so_far.sinks = sinks
    ended: Sequence[Ended] = []
    try:
        pairs = zip(sinks, streams, strict=True)
        async with asyncio.timeout_at(deadline_s):
            ended = await together([_delivered(sink, stream) for sink, stream in pairs])
        last = b"".join(sink.kept_back() for sink in sinks)
        extras: dict[str, object] = {}
        if body.usage_in_stream():
            extras["usage"] = final_usage(plan, ended)
        if body.metrics_in_stream():
            extras["metrics"] = [timing_metrics(one) for one in ended]
        if extras:
            last += closing_frame(envelope, extras)
    except ConnectionError:
        raise
    except Exception as error:
        last = b"data: %b\n\n" % error_bytes(as_api_error(error))
    await wire.close(response, last + DONE)
    return ended


async def _delivered(sink: ChoiceSink, stream: AsyncIterator[TokenEvent]) -> Ended:
    if isinstance(stream, TokenStream):
        stream.deliver_to(sink)
    else:
        async for event in stream:
            sink.event(event)
    return await sink.ended


class ChoiceSink:
    """Writes the frames of one choice, one for each step; see :class:`simserve.engines.streams.TokenSink`.

    A reader who is behind gets what was kept back meanwhile in one frame, so that it costs nobody else anything.
    ``ended`` is done with the last token, or fails with what the client is to be told.
    """

    __slots__ = (
        "_choice", "_kept", "_last", "_next_ready", "_opening", "_read", "_ready", "_so_far", "_texts", "_tokens",
        "_wire", "_writer", "ended",
    )  # fmt: skip

    def __init__(self, wire: EventWire, writer: ChunkWriter, choice: Choice, so_far: _UsageSoFar | None) -> None:
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._wire = wire
        self._writer = writer
        self._choice = choice
        self._so_far = so_far
        self._texts = choice.pieces
        self._opening = writer.opening()
        sequence = choice.sequence
        count = sequence.max_tokens if sequence.output_tokens is None else sequence.output_tokens
        self._last = count - 1 if writer.ends_with_text else count
        """So many are told as they come; the next one with the end, which follows within the same pass."""
        self._tokens = 0
        """That have come."""
        self._read = 0
        """Of these, whose text was written or is in ``_kept``."""
        self._kept: list[Piece] = []
        self._ready: list[bytes] = []
        """What goes over the wire if each of the next steps brings one token, the next one's last."""
        self._next_ready = next(FIRST_READY)

    def step(self, tokens: int) -> None:
        at, self._tokens = self._tokens, self._tokens + tokens
        if self._ready and tokens == 1:  # the usual case, and the only one that has to be fast
            if self._wire.offer(self._ready.pop()):
                self._read = at + 1
            else:
                self._ready.clear()
            return
        self._ready.clear()
        if self._tokens > self._last or not self._wire.has_room():
            return
        if self._texts is None or self._opening or self._kept or self._read != at or self._so_far or tokens != 1:
            self._write()
            return
        self._read = at + 1
        text = self._texts[at]
        if text:
            self._wire.send(self._writer.text(text))

    def prepare(self) -> None:
        at, texts = self._tokens, self._texts
        if self._ready or texts is None or self._read != at or self._opening or self._kept or self._so_far:
            return
        text, framed = self._writer.text, self._wire.framed
        for piece in texts[at : min(at + self._next_ready, self._last)]:
            if not piece:
                break
            self._ready.append(framed(text(piece)))
        self._ready.reverse()
        self._next_ready = MOST_READY

    def event(self, event: TokenEvent) -> None:
        self._ready.clear()
        try:
            check_not_given_up(event)
            self._keep_counted()
            self._tokens += event.tokens
            self._read = self._tokens
            self._kept.append(self._choice.read(event))
            is_told = self._tokens <= self._last or event.finish_reason is not None
            if is_told and self._wire.has_room():
                self._write()
        except Exception as error:
            self._end(error)
        else:
            if event.finish_reason is not None:
                self._end(Ended.of(self._choice, self._tokens, event.timing))

    def failed(self, error: Exception) -> None:
        self._end(error)

    def kept_back(self) -> bytes:
        """The frames of all that has come and was not written; takes them off."""
        self._keep_counted()
        kept, self._kept = self._kept, []
        if not kept:
            return b""
        piece = merged(kept)
        counts = None if self._so_far is None else self._so_far.now()
        opening, self._opening = self._opening, b""
        told = self._writer.content if piece.finish_reason is None else self._writer.last
        return opening + told(piece, counts)

    @property
    def tokens(self) -> int:
        """That have come so far."""
        return self._tokens

    def _keep_counted(self) -> None:
        """Keep what tokens tell that were only counted."""
        if self._read < self._tokens:
            self._kept.append(self._choice.read(TokenEvent(self._read, self._tokens - self._read, 0.0)))
            self._read = self._tokens

    def _write(self) -> None:
        try:
            frames = self.kept_back()
        except Exception as error:
            self._end(error)
        else:
            if frames:
                self._wire.send(frames)

    def _end(self, how: Ended | Exception) -> None:
        if self.ended.done():
            return  # the handler was cancelled, or has been told of a failure
        if isinstance(how, Exception):
            self.ended.set_exception(how)
        else:
            self.ended.set_result(how)


class _UsageSoFar:
    """Usage of a stream in the making, over all its choices."""

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self.sinks: Sequence[ChoiceSink] = ()

    def now(self) -> dict[str, object]:
        return usage(self._prompt_tokens, sum(sink.tokens for sink in self.sinks))
