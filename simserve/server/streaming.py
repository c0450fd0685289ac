"""Answers token by token: server-sent events at the times the engine's steps end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from simserve.engines.base import TokenEvent
from simserve.server.errors import as_api_error, error_bytes
from simserve.server.plans import Choice, Plan
from simserve.server.protocol import CompletionFields
from simserve.server.responses import DONE, ChunkWriter, Envelope, final_usage, usage, usage_frame
from simserve.server.streams import Ended, check_not_given_up, together

SSE_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


async def stream_answer(
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
    ended: Sequence[Ended] = []
    try:
        so_far = _UsageSoFar(plan.prompt_tokens) if body.usage_in_every_chunk() else None
        pairs = zip(plan.choices, streams, strict=True)
        async with asyncio.timeout_at(deadline_s):
            ended = await together(
                [_stream_choice(response, envelope, choice, stream, so_far) for choice, stream in pairs]
            )
        if body.usage_in_stream():
            await response.write(usage_frame(envelope, final_usage(plan, ended)))
    except ConnectionError:
        raise
    except Exception as error:
        await response.write(b"data: %b\n\n" % error_bytes(as_api_error(error)))
    await response.write(DONE)
    await response.write_eof()
    return ended


async def _stream_choice(
    response: web.StreamResponse,
    envelope: Envelope,
    choice: Choice,
    stream: AsyncIterator[TokenEvent],
    so_far: _UsageSoFar | None,
) -> Ended:
    """Write the frames of one choice, one write per step; a slow reader holds up this task and no other."""
    writer = ChunkWriter(envelope, choice.index)
    pending = writer.opening()
    tokens = 0
    async for event in stream:
        check_not_given_up(event)
        tokens += event.tokens
        counts = so_far.add(event.tokens) if so_far else None
        piece = choice.read(event)
        frames = pending + writer.content(piece, counts)
        pending = b""
        if piece.finish_reason is not None:
            frames += writer.finish(piece, counts)
        if frames:
            await response.write(frames)
    return Ended.of(choice, tokens, event.timing)


class _UsageSoFar:
    """Usage of a stream in the making, over all its choices."""

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._completion_tokens = 0

    def add(self, tokens: int) -> dict[str, object]:
        self._completion_tokens += tokens
        return usage(self._prompt_tokens, self._completion_tokens)
