"""A stream: what the engine leaves is handed on at once, or kept until somebody asks, or until all is there."""

from __future__ import annotations

import asyncio

import pytest

from simserve.engines.base import TokenEvent
from simserve.engines.streams import TokenStream


class Sink:
    """Writes down what it is handed."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def step(self, tokens: int) -> None:
        self.heard.append(tokens)

    def event(self, event: TokenEvent) -> None:
        self.heard.append((event.index, event.tokens, event.text, event.finish_reason))

    def failed(self, error: Exception) -> None:
        self.heard.append(error)


def new_stream(closed: list[str] | None = None) -> TokenStream:
    return TokenStream(on_close=lambda: closed.append("closed") if closed is not None else None)


async def test_tokens_that_wait_are_one_event() -> None:
    stream = new_stream()
    for step in range(3):
        stream.push(step * 0.1)
    event = await anext(stream)
    assert (event.index, event.tokens, event.time_s) == (0, 3, 0.2)
    stream.push(0.3)
    stream.finish("length", 0.3)
    rest = [event async for event in stream]
    assert [(event.index, event.tokens, event.finish_reason) for event in rest] == [(3, 1, "length")]


async def test_a_sink_hears_every_token_when_it_comes_and_first_what_was_there() -> None:
    stream, sink = new_stream(), Sink()
    stream.push(0.1)
    stream.push(0.2)
    stream.deliver_to(sink)
    assert sink.heard == [(0, 2, "", None)]
    stream.push(0.3)
    stream.finish("stop", 0.3)
    assert sink.heard[1:] == [1, (3, 0, "", "stop")]
    assert stream.produced_tokens == 3


async def test_a_failure_reaches_who_listens_as_it_is() -> None:
    listened, iterated, sink, failure = new_stream(), new_stream(), Sink(), ValueError("no room")
    listened.deliver_to(sink)
    for stream in (listened, iterated):
        stream.push(0.1)
        stream.fail(failure)
        stream.push(0.2)
    assert sink.heard == [1, failure]
    with pytest.raises(ValueError, match="no room"):
        await anext(iterated)


async def test_a_sink_hears_the_words_of_a_real_engine() -> None:
    stream, sink = new_stream(), Sink()
    stream.deliver_to(sink)
    stream.push(0.1, token_ids=[5, 6], text="two words")
    stream.push(0.2, token_ids=[7])  # half a character: nothing to say yet
    stream.finish("stop", 0.2, text="!")
    assert sink.heard == [(0, 2, "two words", None), (2, 1, "", None), (3, 0, "!", "stop")]


async def test_who_wants_the_whole_answer_is_woken_up_once() -> None:
    stream = new_stream()
    stream.merge_all()
    reading = asyncio.create_task(anext(stream))
    for step in range(5):
        stream.push(step * 0.1)
        await asyncio.sleep(0)
    assert not reading.done()
    stream.finish("length", 0.4)
    event = await reading
    assert (event.tokens, event.finish_reason) == (5, "length")


async def test_closing_is_told_once_and_later_tokens_are_nobodys() -> None:
    closed: list[str] = []
    stream, sink = new_stream(closed), Sink()
    stream.deliver_to(sink)
    await stream.aclose()
    await stream.aclose()
    stream.push(0.1)
    stream.finish("length", 0.1)
    assert closed == ["closed"]
    assert sink.heard == []
    assert [event async for event in stream] == []


async def test_a_stream_that_had_ended_is_not_given_up() -> None:
    closed: list[str] = []
    stream = new_stream(closed)
    stream.push(0.1)
    stream.finish("length", 0.1)
    await stream.aclose()
    assert closed == []
