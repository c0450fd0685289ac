"""Lines are made where something happens and written elsewhere: nobody who serves waits for a pipe or for a disk."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from typing import Protocol, TextIO

from simserve.server.secrecy import NONE, Secrets

MOST_WAITING_LINES = 10_000
"""Further lines are dropped, and counted, until some of these are written: a megabyte or two."""

GATHER_S = 0.01
"""Lines of so long are written together; also how late a line may be."""

LOOK_EVERY_S = 1.0
"""A sink is called so often at least: a file may have become old."""

FLUSH_S = 1.0
"""How long whoever flushes or closes waits for a reader that takes nothing."""


class LineSink(Protocol):
    """Where lines go."""

    def write(self, text: str) -> None:
        """Write whole lines, or none: only time has passed. May block; raises OSError if they are lost."""
        ...

    def close(self) -> None:
        """There will be no more."""
        ...


class Console:
    """Writes to a stream that others may write to as well, past its buffer: a thread stuck there would lock it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        try:
            self._file: int | None = stream.fileno()
        except (OSError, ValueError):
            self._file = None  # it is kept in memory

    def write(self, text: str) -> None:
        """See :class:`LineSink`."""
        if self._file is None:
            self._stream.write(text)
        elif text:
            write_all(self._file, text.encode(self._stream.encoding or "utf-8", "backslashreplace"))

    def close(self) -> None:
        """It is not ours to close."""


def write_all(file: int, data: bytes) -> None:
    """Write ``data`` in one call if the system takes it so; waits for a pipe that is full, even a non-blocking one."""
    while data:
        try:
            data = data[os.write(file, data) :]
        except BlockingIOError:
            time.sleep(GATHER_S)


class BackgroundHandler(logging.Handler):
    """Makes a line of each record at once and has a thread of its own hand the lines to ``sink``, many at a time.

    While ``sink`` takes nothing and ``most_waiting`` lines wait, further ones are dropped; how many they were is said
    in their place as soon as it takes lines again. So are those that it failed to write. The thread strikes
    ``secrets`` out.
    """

    def __init__(self, sink: LineSink, most_waiting: int = MOST_WAITING_LINES, secrets: Secrets = NONE) -> None:
        super().__init__()
        self._sink = sink
        self._secrets = secrets
        self._most_waiting = most_waiting
        self._lines: deque[str] = deque()
        self._put = self._done = 0
        """Lines that were put into the queue, and that came out of it."""
        self._dropped = self._lost = self._told = 0
        """Lines that found no room, that the sink failed to write, and of both those that were told of."""
        self._progress = threading.Condition()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._write_on, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a line into the queue. Never waits."""
        if len(self._lines) >= self._most_waiting:
            self._dropped += 1
            return
        try:
            line = self.format(record)
            if record.exc_info:  # an exception may quote what a client sent
                line = self._secrets.without(line)
        except Exception:
            self.handleError(record)
            return
        self._lines.append(f"{line}\n")
        self._put += 1
        if not self._wake.is_set():
            self._wake.set()

    def flush(self) -> None:
        """Wait until all that was logged so far is written, but not for ever."""
        put = self._put
        with self._progress:
            self._progress.wait_for(lambda: self._done >= put, FLUSH_S)

    def close(self) -> None:
        """Write what waits, and end; a sink that is stuck is left alone."""
        self._closing = True
        self._wake.set()
        self._thread.join(FLUSH_S)
        if not self._thread.is_alive():
            self._sink.close()
        super().close()

    def _write_on(self) -> None:
        closing = False
        while not closing:
            if self._wake.wait(LOOK_EVERY_S) and not self._closing:
                time.sleep(GATHER_S)
            closing = self._closing
            self._wake.clear()
            self._write_waiting()

    def _write_waiting(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        missing = self._dropped + self._lost - self._told
        text = self._secrets.in_line("".join(lines)) + (self._told_of(missing) if missing else "")
        try:
            self._sink.write(text)
        except (OSError, ValueError):  # a full disk, a reader that is gone, a stream that somebody closed
            self._lost += len(lines)
        else:
            self._told += missing
        with self._progress:
            self._done += len(lines)
            self._progress.notify_all()

    def _told_of(self, missing: int) -> str:
        message = f"{missing} lines of the log are missing here: they came faster than they could be written"
        fields = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "msg": message}
        return f"{self.format(logging.makeLogRecord(fields))}\n"
