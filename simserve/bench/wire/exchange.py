"""One request and all that came back: raw stamps and raw bytes, nothing interpreted."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal

Trouble = Literal["", "refused", "connect", "reset", "timeout", "protocol", "interrupted"]
"""What broke on the way: nothing; no connection (nobody listens, or another reason); closed or reset before the answer
was complete; too slow; bytes that are no HTTP; stopped by the user."""


class Exchange:
    """One request while it is under way. Times are ``perf_counter`` seconds.

    ``due_s`` is when the load's shape wanted it sent, ``ready_s`` when the concurrency limit let it go as well,
    ``sent_s`` the instant before its bytes were handed to the kernel. ``times_s[i]`` is when ``reads[i]`` arrived,
    ``begun_s`` when the first of them came that has an event in it (0 if none has): what the display takes for TTFT.
    """

    __slots__ = (
        "begun_s", "detail", "due_s", "end_s", "index", "reads", "ready_s", "request_id", "sent_s", "times_s",
        "trouble",
    )  # fmt: skip

    def __init__(self, index: int, request_id: str, due_s: float, ready_s: float) -> None:
        self.index = index
        self.request_id = request_id
        self.due_s = due_s
        self.ready_s = ready_s
        self.sent_s = float("nan")
        self.end_s = float("nan")
        self.begun_s = 0.0
        self.times_s: list[float] = []
        self.reads: list[bytes] = []
        self.trouble: Trouble = ""
        self.detail = ""


@dataclass(frozen=True)
class Finished:
    """An exchange that is over: ``raw`` is the whole response, ``read_bytes[i]`` of which arrived at ``times_s[i]``."""

    index: int
    request_id: str
    due_s: float
    ready_s: float
    sent_s: float
    end_s: float
    times_s: array[float]
    read_bytes: array[int]
    raw: bytes
    trouble: Trouble
    detail: str


def finished(exchange: Exchange) -> Finished:
    """``exchange`` as a value."""
    return Finished(*_fields(exchange))


def _fields(exchange: Exchange) -> tuple[Any, ...]:
    return (
        exchange.index,
        exchange.request_id,
        exchange.due_s,
        exchange.ready_s,
        exchange.sent_s,
        exchange.end_s,
        array("d", exchange.times_s),
        array("L", map(len, exchange.reads)),
        b"".join(exchange.reads),
        exchange.trouble,
        exchange.detail,
    )


class Spool:
    """Finished exchanges in a file of our own, so that a long run does not fill the memory with what it was told.

    Writing one costs about 10 us and happens after its answer is complete. ``file`` must be open for both.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0

    def write(self, exchange: Exchange) -> None:
        """Keep ``exchange``, which is over."""
        pickle.dump(_fields(exchange), self._file, protocol=5)
        self.count += 1

    def read(self) -> Iterator[Finished]:
        """Everything that was written, in that order."""
        self._file.flush()
        self._file.seek(0)
        for _ in range(self.count):
            yield Finished(*pickle.load(self._file))
