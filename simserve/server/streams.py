"""The engine's token streams of one HTTP request: opened together, closed whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from simserve.engines.base import Engine, GenerationRequest, RequestTiming, TokenEvent
from simserve.server.errors import shutting_down

Result = TypeVar("Result")


@asynccontextmanager
async def opened(
    engine: Engine, sequences: Sequence[GenerationRequest]
) -> AsyncIterator[list[AsyncIterator[TokenEvent]]]:
    """Submit ``sequences`` now and close their streams at the end.

    Closing a stream that has not ended aborts its sequence: so a client that hung up, or an answer that failed half
    way, holds no KV blocks. Raises :class:`simserve.errors.RequestError` if the engine refuses one of them.
    """
    streams: list[AsyncIterator[TokenEvent]] = []
    try:
        for sequence in sequences:
            # One by one: those before a refused one must be closed too.
            streams.append(engine.submit(sequence))  # noqa: PERF401
        yield streams
    finally:
        for stream in streams:
            await _close(stream)


async def _close(stream: AsyncIterator[TokenEvent]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


async def drained(stream: AsyncIterator[TokenEvent]) -> RequestTiming | None:
    """Wait until the last token; raises :class:`simserve.server.errors.ApiError` (503) if the engine gave up."""
    timing: RequestTiming | None = None
    async for event in stream:
        check_not_aborted(event)
        timing = event.timing
    return timing


def check_not_aborted(event: TokenEvent) -> None:
    """Raise if the engine ended the sequence because it stops."""
    if event.finish_reason == "abort":
        raise shutting_down()


async def together(work: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run all at once; the first failure cancels the others and is raised as it is."""
    if len(work) == 1:
        return [await work[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
