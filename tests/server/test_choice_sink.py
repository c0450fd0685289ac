"""The sink under a stream: whatever was made ready before, whenever the reader had room, he reads the same."""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import dataclass

from hypothesis import example, given
from hypothesis import strategies as st

from simserve.engines.base import GenerationRequest, TokenEvent
from simserve.server.plans import Piece
from simserve.server.responses import ChunkWriter, Envelope
from simserve.server.streaming import ChoiceSink

WORDS = ["", "Once", " upon", "", " a", " time", ' "quoted"', "\n", " é", "."]


class Wire:
    """A reader who has room when ``room`` says so."""

    def __init__(self) -> None:
        self.room = True
        self.read = b""

    def has_room(self) -> bool:
        return self.room

    def framed(self, frame: bytes) -> bytes:
        return frame

    def send(self, frame: bytes) -> None:
        self.read += frame

    def offer(self, data: bytes) -> bool:
        self.read += data if self.room else b""
        return self.room


class Known:
    """A choice all of whose words are known beforehand."""

    index = 0
    sequence = GenerationRequest("r", [1], len(WORDS))
    pieces = WORDS
    is_silent = False
    reasoning_tokens = 0

    def read(self, event: TokenEvent) -> Piece:
        return Piece("".join(WORDS[event.index : event.index + event.tokens]), event.finish_reason)


@dataclass(frozen=True)
class Step:
    """What happens around a token: is anything made ready before, how many come at once, has the reader room."""

    prepared: bool
    tokens: int
    room: bool


steps = st.lists(st.builds(Step, st.booleans(), st.integers(1, 3), st.booleans()), max_size=12)


async def read(chat: bool, around: list[Step], *, end_apart: bool = False) -> tuple[str, list[str]]:
    """The text that a client gets, and the frames; the end comes with the last tokens, or right after them."""
    wire, count = Wire(), len(WORDS)
    envelope = Envelope("id", "model", 0, chat)
    sink = ChoiceSink(wire, ChunkWriter(envelope, 0), Known(), None)  # type: ignore[arg-type]
    said = 0
    for step in around:
        tokens = min(step.tokens, count - 1 - said)
        if tokens == 0:
            break
        if step.prepared:
            sink.prepare()
        wire.room = step.room
        sink.step(tokens)
        said += tokens
    sink.prepare()
    if end_apart:
        while said < count:
            sink.step(1)
            said += 1
    sink.event(TokenEvent(said, count - said, 1.0, "length"))
    frames = (wire.read + sink.kept_back()).decode().split("\n\n")[:-1]
    chunks = [json.loads(frame.removeprefix("data: "))["choices"][0] for frame in frames]
    assert chunks[-1]["finish_reason"] == "length"
    assert (await sink.ended).tokens == count
    texts = [chunk["delta"].get("content", "") if chat else chunk["text"] for chunk in chunks]
    return "".join(texts), texts


@given(st.booleans(), steps, st.booleans())
@example(True, [Step(True, 1, True)] * 9, False)
@example(False, [Step(True, 1, False), Step(True, 1, True), Step(True, 2, True), Step(True, 1, True)], True)
def test_the_words_are_the_same_however_they_got_out(chat: bool, around: list[Step], end_apart: bool) -> None:
    text, _ = asyncio.run(read(chat, around, end_apart=end_apart))
    assert text == "".join(WORDS)


def test_made_ready_or_not_each_token_has_a_frame_of_its_own() -> None:
    for prepared, end_apart in itertools.product((True, False), repeat=2):
        _, texts = asyncio.run(read(False, [Step(prepared, 1, True)] * 9, end_apart=end_apart))
        assert texts == [word for word in WORDS if word]
