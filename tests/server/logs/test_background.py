"""Lines are written by a thread: whoever logs goes on, whatever becomes of the lines."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from simserve.server.logs import background
from simserve.server.logs.background import BackgroundHandler, Console, write_all
from simserve.server.logs.formats import JsonFormat

PATIENCE_S = 30.0


class Sink:
    """Keeps what it is given. While it is shut it takes nothing, and keeps its caller waiting."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.waited_for = threading.Event()
        self.asked = threading.Semaphore(0)
        """Once for each time that there was nothing to write."""
        self.error: Exception | None = None
        self.text = ""
        self.closed = False

    def write(self, text: str) -> None:
        if not text:
            self.asked.release()
            return
        self.waited_for.set()
        assert self.open.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        self.text += text

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def new_handler(sink: Sink) -> Iterator[Callable[..., BackgroundHandler]]:
    handlers: list[BackgroundHandler] = []

    def new(most_waiting: int = 1000) -> BackgroundHandler:
        handlers.append(BackgroundHandler(sink, most_waiting))
        return handlers[-1]

    yield new
    sink.open.set()
    for handler in handlers:
        handler.close()


def tell(handler: logging.Handler, *messages: object) -> None:
    for message in messages:
        handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "%s", (message,), None))


def shut(sink: Sink, handler: logging.Handler) -> None:
    """Have the thread stuck in the sink, with one line."""
    sink.open.clear()
    sink.waited_for.clear()
    tell(handler, "stuck")
    assert sink.waited_for.wait(PATIENCE_S)


def test_lines_come_out_in_order(sink: Sink, new_handler: Callable[..., BackgroundHandler]) -> None:
    handler = new_handler()
    for number in range(500):
        tell(handler, number)
        if number % 100 == 0:
            handler.flush()
            assert sink.text.splitlines() == [str(one) for one in range(number + 1)]
    handler.close()
    assert sink.text.splitlines() == [str(one) for one in range(500)]
    assert sink.closed


def test_what_finds_no_room_is_counted_and_told_once(sink: Sink, new_handler: Callable[..., BackgroundHandler]) -> None:
    handler = new_handler(most_waiting=10)
    shut(sink, handler)
    tell(handler, *range(60))
    sink.open.set()
    handler.flush()
    tell(handler, "after")
    handler.flush()
    stuck, *waited, missing, after = sink.text.splitlines()
    assert (stuck, waited, after) == ("stuck", [str(number) for number in range(10)], "after")
    assert missing.startswith("50 lines of the log are missing here")


def test_what_could_not_be_written_is_told_of(sink: Sink, new_handler: Callable[..., BackgroundHandler]) -> None:
    handler = new_handler()
    handler.setFormatter(JsonFormat())
    sink.error = OSError("no space left")
    for number in range(3):
        tell(handler, number)
        handler.flush()
    sink.error = None
    tell(handler, "after")
    handler.flush()
    after, missing = (json.loads(line) for line in sink.text.splitlines())
    assert after["message"] == "after"
    assert missing["message"].startswith("3 lines of the log are missing")
    assert missing["level"] == "warning"


def test_nobody_waits_for_ever(
    sink: Sink, new_handler: Callable[..., BackgroundHandler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "FLUSH_S", 0.01)
    handler = new_handler()
    shut(sink, handler)
    handler.flush()
    handler.close()
    assert not sink.closed


def test_a_sink_is_asked_now_and_then(
    sink: Sink, new_handler: Callable[..., BackgroundHandler], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be time to put a file aside that others write to."""
    monkeypatch.setattr(background, "LOOK_EVERY_S", 0.01)
    new_handler()
    for _ in range(3):
        assert sink.asked.acquire(timeout=PATIENCE_S)


def test_a_pipe_that_would_not_block() -> None:
    """Some parents leave their pipes so: all gets through, in the reader's time."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = os.urandom(300_000)
    writer = threading.Thread(target=write_all, args=(writing, data))
    writer.start()
    with os.fdopen(reading, "rb") as reader:
        got = reader.read(len(data))
    writer.join()
    os.close(writing)
    assert got == data


def test_what_the_console_cannot_say_is_spelled_out(capfd: pytest.CaptureFixture[str]) -> None:
    with os.fdopen(os.dup(1), "w", encoding="ascii") as stream:
        Console(stream).write("caf\u00e9 \ud800\n")
    assert capfd.readouterr().out == "caf\\xe9 \\ud800\n"
