"""A server of fixed timing: the first token so long after the request arrived, the others at even distances.

It speaks OpenAI's two completion endpoints, streamed, and logs when each request arrived and each token left, so that a
client's error can be told from the server's. One alarm serves all streams; chunks are made beforehand.
"""

from __future__ import annotations

import asyncio
import os
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from time import perf_counter, process_time
from typing import TYPE_CHECKING, cast

import orjson

from simserve.bench.load.worker import loop_factory
from simserve.bench.wire.alarm import Alarm
from simserve.resources import allow_many_connections

if TYPE_CHECKING:
    from multiprocessing.connection import Connection as Pipe

BACKLOG = 4096
READ_AT_ONCE = 16
MODEL = "fixed-timing"
LOG_PATH = "/log"
REQUEST_ID = b"x-request-id:"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Timing:
    """``tokens`` tokens per answer: the first after ``ttft_s``, then one every ``itl_s``."""

    ttft_s: float = 0.1
    itl_s: float = 0.02
    tokens: int = 100

    @property
    def e2el_s(self) -> float:
        """From the request's arrival to the last token."""
        return self.ttft_s + (self.tokens - 1) * self.itl_s


class Metronome:
    """Lets every stream have its next chunk when it is due."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timing: Timing) -> None:
        self.timing = timing
        self.answered: list[_Stream] = []
        self.frames = {is_chat: frames(timing.tokens, is_chat=is_chat) for is_chat in (False, True)}
        self._due: list[tuple[float, int, _Stream]] = []
        self._order = count()
        self.unnamed = count()
        self._loop = loop
        self._unread: deque[tuple[float, FixedTimingProtocol]] = deque()
        self._alarm = Alarm(loop, self._tick)
        self._set_s = float("inf")

    def arrived(self, arrived_s: float, connection: FixedTimingProtocol) -> None:
        """Bytes have come on ``connection``. They are read a little later: stamps of others go first."""
        if not self._unread:
            self._loop.call_soon(self._read)
        self._unread.append((arrived_s, connection))

    def _read(self) -> None:
        for _ in range(min(len(self._unread), READ_AT_ONCE)):
            arrived_s, connection = self._unread.popleft()
            connection.read(arrived_s)
        if self._unread:
            self._loop.call_soon(self._read)

    def start(self, stream: _Stream) -> None:
        """Begin an answer."""
        due_s = stream.arrived_s + self.timing.ttft_s
        heappush(self._due, (due_s, next(self._order), stream))
        if due_s < self._set_s:
            self._set_s = due_s
            self._alarm.set(due_s)

    def _tick(self) -> None:
        self._set_s = float("inf")
        now = perf_counter()
        due = self._due
        while due and due[0][0] <= now:
            due_s, _, stream = heappop(due)
            if stream.write_token():
                heappush(due, (due_s + self.timing.itl_s, next(self._order), stream))
            else:
                self.answered.append(stream)
        if due:
            self._set_s = due[0][0]
            self._alarm.set(self._set_s)

    def log(self) -> dict[str, object]:
        """For each answer that is complete its request's arrival and its tokens' sending; and the CPU used so far."""
        answers = {stream.request_id: [stream.arrived_s, *stream.sent_s] for stream in self.answered}
        return {"answers": answers, "cpu_s": process_time()}

    def close(self) -> None:
        """Ring no more."""
        self._alarm.close()


class _Stream:
    """One answer under way: when its request arrived, and when its tokens left."""

    __slots__ = ("_frames", "_write", "arrived_s", "request_id", "sent_s")

    def __init__(self, request_id: str, arrived_s: float, write: Callable[[bytes], None], frames: list[bytes]) -> None:
        self.request_id = request_id
        self.arrived_s = arrived_s
        self.sent_s = array("d")
        self._write = write
        self._frames = frames

    def write_token(self) -> bool:
        """Send the next chunk; whether another is to come."""
        frame = self._frames[len(self.sent_s)]
        self.sent_s.append(perf_counter())
        self._write(frame)
        return len(self.sent_s) < len(self._frames)


def frames(tokens: int, *, is_chat: bool) -> list[bytes]:
    """What is written at each token: with the first the headers, with the last all that ends an answer."""
    body: dict[str, object] = {
        "id": "fixed", "object": "chat.completion.chunk" if is_chat else "text_completion", "created": 0, "model": MODEL
    }  # fmt: skip
    token = {"delta": {"content": " tick"}} if is_chat else {"text": " tick"}
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
    middle = _chunk(_event(body | {"choices": [{"index": 0, **token, "finish_reason": None}]}))
    last = _chunk(_event(body | {"choices": [{"index": 0, **token, "finish_reason": "length"}]}))
    end = _chunk(_event(body | {"choices": [], "usage": usage}) + b"data: [DONE]\n\n") + b"0\r\n\r\n"
    answer = [middle] * (tokens - 1) + [last + end]
    answer[0] = STREAM_HEAD + answer[0]
    return answer


def _event(body: dict[str, object]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(body)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class FixedTimingProtocol(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, metronome: Metronome) -> None:
        self._metronome = metronome
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._descriptor = self._transport.get_extra_info("socket").fileno()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._metronome.arrived(perf_counter(), self)
        self._buffer += data

    def read(self, arrived_s: float) -> None:
        """Begin to answer every request that is all here, the last part of it since ``arrived_s``."""
        while (request := self._next_request()) is not None:
            self._answer(request, arrived_s)

    def _next_request(self) -> bytes | None:
        """The head of the next whole request; None if it is not all here."""
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        head = self._buffer[:head_end]
        end = head_end + 4 + int(_header(head, b"content-length:") or 0)
        if len(self._buffer) < end:
            return None
        self._buffer = self._buffer[end:]
        return head

    def _answer(self, head: bytes, arrived_s: float) -> None:
        line = head.split(b"\r\n", 1)[0]
        if line.startswith(b"POST") and b"completions" in line:
            id_ = _header(head, REQUEST_ID).decode("latin-1") or f"unnamed-{next(self._metronome.unnamed)}"
            stream = _Stream(id_, arrived_s, self._write, self._metronome.frames[b"/chat/" in line])
            self._metronome.start(stream)
        elif b"/v1/models" in line:
            self._write(_json({"object": "list", "data": [{"id": MODEL, "object": "model", "root": MODEL}]}))
        elif LOG_PATH.encode() in line:
            self._write(_json(self._metronome.log()))
        elif b"/health" in line:
            self._write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        else:
            self._write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            return
        # Straight to the kernel, as the client does: a transport of uvloop would wait for the end of the loop's turn.
        sent = 0
        if not self._transport.get_write_buffer_size():
            try:
                sent = os.write(self._descriptor, data)
            except OSError:
                sent = 0
        if sent < len(data):
            self._transport.write(data[sent:])


def _header(head: bytes, name: bytes) -> bytes:
    """The value of the header whose ``name`` (in lower case, with its colon) this is; empty if it is not there."""
    place = head.lower().find(b"\r\n" + name)
    return head[place + 2 + len(name) :].split(b"\r\n", 1)[0].strip() if place >= 0 else b""


def _json(body: dict[str, object]) -> bytes:
    content = orjson.dumps(body)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content)
    return head + content


def serve_fixed_timing(timing: Timing, pipe: Pipe) -> None:
    """The main function of a process that serves on loopback: says its port over ``pipe``, ends when that closes."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(timing, pipe))


async def _serve(timing: Timing, pipe: Pipe) -> None:
    import gc

    allow_many_connections()
    loop = asyncio.get_running_loop()
    metronome = Metronome(loop, timing)
    server = await loop.create_server(lambda: FixedTimingProtocol(metronome), "127.0.0.1", 0, backlog=BACKLOG)
    over = asyncio.Event()
    loop.add_reader(pipe.fileno(), over.set)
    pipe.send(server.sockets[0].getsockname()[1])
    gc.collect()
    gc.freeze()
    gc.disable()
    await over.wait()
    metronome.close()
    server.close()
