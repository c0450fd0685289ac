"""The engine's token streams of one HTTP request: opened together, read, closed whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from simserve.engines.base import Engine, GenerationRequest, RequestTiming, TokenEvent
from simserve.engines.streams import TokenStream
from simserve.server.errors import engine_failed, shutting_down
from simserve.server.plans import Choice, Plan, ToolDelta, merged, run

Result = TypeVar("Result")


class AnswersLater:
    """An engine in another process that may refuse a sequence, and says so only after a while."""

    async def admitted(self, streams: Sequence[AsyncIterator[TokenEvent]]) -> None:
        """Wait until it has said of all ``streams`` that it takes them; raises what it says else."""
        raise NotImplementedError


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
        if isinstance(engine, AnswersLater):
            await engine.admitted(streams)
        yield streams
    finally:
        for stream in streams:
            await _close(stream)


async def _close(stream: AsyncIterator[TokenEvent]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


@dataclass(frozen=True)
class Ended:
    """What usage and headers need to know of a sequence that ended."""

    tokens: int
    timing: RequestTiming | None
    reasoning_tokens: int = 0

    @classmethod
    def of(cls, choice: Choice, tokens: int, timing: RequestTiming | None) -> Ended:
        """What is told of ``choice`` after so many tokens."""
        told = 0 if choice.is_silent else tokens
        return cls(told, timing, min(choice.reasoning_tokens, told))


@dataclass(frozen=True, kw_only=True)
class Answer(Ended):
    """A whole answer: all that a body that is not streamed says of one choice."""

    index: int
    text: str
    finish_reason: str | None
    stop_reason: str | int | None
    logprobs: Mapping[str, Any] | None
    reasoning: str = ""
    calls: tuple[ToolDelta, ...] = ()
    token_ids: tuple[int, ...] | None = None


async def whole_answer(choice: Choice, stream: AsyncIterator[TokenEvent], *, in_thread: bool = False) -> Answer:
    """Read ``stream`` to its end, an answer that takes long to read in a thread.

    Raises :class:`simserve.server.errors.ApiError` if the engine gave up.
    """
    tokens, pieces = 0, []
    async for event in _at_the_end(stream):
        check_not_given_up(event)
        pieces.append(await run(partial(choice.read, event), in_thread=in_thread))
        tokens += event.tokens
    whole = merged(pieces)
    ended = Ended.of(choice, tokens, event.timing)
    return Answer(
        tokens=ended.tokens,
        timing=ended.timing,
        reasoning_tokens=ended.reasoning_tokens,
        index=choice.index,
        text=whole.text,
        finish_reason=whole.finish_reason,
        stop_reason=whole.stop_reason,
        logprobs=whole.logprobs,
        reasoning=whole.reasoning,
        calls=whole.calls,
        token_ids=whole.token_ids,
    )


def longest_choices(plan: Plan, ended: Sequence[Ended]) -> tuple[int, list[int]]:
    """How many choices each prompt has, and the tokens of its longest; none for an answer that broke off."""
    choices = len(plan.choices) // plan.prompts
    return choices, [
        max(one.tokens for one in ended[first : first + choices]) for first in range(0, len(ended), choices)
    ]


async def drained(stream: AsyncIterator[TokenEvent]) -> Ended:
    """Wait until ``stream`` ends; raises like :func:`whole_answer`."""
    tokens = 0
    async for event in _at_the_end(stream):
        check_not_given_up(event)
        tokens += event.tokens
    return Ended(tokens, event.timing)


def _at_the_end(stream: AsyncIterator[TokenEvent]) -> AsyncIterator[TokenEvent]:
    """``stream`` with all its tokens in one event, if it can do that: nobody needs to wake up for each of them."""
    if isinstance(stream, TokenStream):
        stream.merge_all()
    return stream


def check_not_given_up(event: TokenEvent) -> None:
    """Raise if the engine ended the sequence because it stops (503) or because it failed (500).

    One that was aborted for a stated reason, such as an engine put to sleep, is an answer as far as it goes.
    """
    if event.finish_reason == "abort" and event.stop_reason is None:
        raise shutting_down()
    if event.finish_reason == "error":
        raise engine_failed(event.error)


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
