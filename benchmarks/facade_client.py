"""Clients for ``facade.py`` that cost as little as can be: raw sockets, one epoll, no parsing of what is not needed."""

from __future__ import annotations

import json
import select
import socket
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

READ_BYTES = 4096
"""At a time: some tokens' frames. A large buffer costs more to have than a chunk to read."""

LOOK_FROM_S = 3.0
"""Before the end of the time that streams run for: the last look."""

CONNECTIONS = 32
ANSWER_TOKENS = 16
HEADERS = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "


@dataclass
class StreamTimes:
    """When each token of a stream was read, by the wall's clock, and the simulated time of the first."""

    read_s: array[float] = field(default_factory=lambda: array("d"))
    first_token_s: float = 0.0
    tail: bytes = b""


def read_streams(
    port: int, streams: int, seconds: float, tokens_per_s: float, look: Callable[[], None]
) -> list[StreamTimes]:
    """Open ``streams`` streams and read them to their end, ``seconds`` after the last was opened.

    ``look`` is called twice: once the streams have settled, and before the first of them ends.
    """
    ramp_s = streams / 500
    tokens = int((ramp_s + seconds + LOOK_FROM_S) * tokens_per_s)
    epoll = select.epoll()
    open_sockets: dict[int, tuple[socket.socket, StreamTimes]] = {}
    start_s = time.monotonic()
    times = [StreamTimes() for _ in range(streams)]
    for number, stream in enumerate(times):
        sock = _send(port, _request(f"{number}", tokens, stream=True))
        open_sockets[sock.fileno()] = (sock, stream)
        epoll.register(sock, select.EPOLLIN)
        _read(epoll, open_sockets, 0.05)
        time.sleep(max(0.0, start_s + number / 500 - time.monotonic()))
    looks = [time.monotonic() + 2.0, time.monotonic() + seconds]
    while open_sockets:
        if looks and time.monotonic() >= looks[0]:
            look()
            looks.pop(0)
        _read(epoll, open_sockets, 0.05)
    return times


def _read(epoll: select.epoll, open_sockets: dict[int, tuple[socket.socket, StreamTimes]], wait_s: float) -> None:
    for descriptor, _ in epoll.poll(wait_s):
        sock, stream = open_sockets[descriptor]
        data = sock.recv(READ_BYTES)
        now = time.monotonic()
        if not data:
            raise ConnectionError("the server closed a stream before its end")
        stream.read_s.extend([now] * data.count(b'"text":"'))
        if b"[DONE]" in data or b'"finish_reason":"' in data:
            stream.tail += data
            if b"[DONE]" in stream.tail:
                _end(stream)
                epoll.unregister(descriptor)
                sock.close()
                del open_sockets[descriptor]


def _end(stream: StreamTimes) -> None:
    """Read the first token's time from the last chunk."""
    event = next(line for line in stream.tail.split(b"\n") if b'"metrics":' in line)
    stream.first_token_s = json.loads(event.removeprefix(b"data: "))["metrics"][0]["first_token_s"]


def _request(key: str, tokens: int, *, stream: bool) -> bytes:
    body: dict[str, object] = {"prompt": f"Number {key}", "max_tokens": tokens, "stream": stream}
    if stream:
        body["stream_options"] = {"include_metrics": True}
    content = json.dumps(body).encode()
    return f"{HEADERS}{len(content)}\r\n\r\n".encode() + content


def _send(port: int, data: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(data)
    sock.setblocking(False)
    return sock


def requests_per_second(port: int, seconds: float) -> float:
    """How many answers come in a second on kept connections that each ask again at once."""
    requests = [_request(f"{number}", ANSWER_TOKENS, stream=False) for number in range(CONNECTIONS)]
    sockets = [_send(port, request) for request in requests]
    asks = {sock.fileno(): (sock, request) for sock, request in zip(sockets, requests, strict=True)}
    epoll = select.epoll()
    for sock in sockets:
        epoll.register(sock, select.EPOLLIN)
    answers = 0
    start_s = time.monotonic()
    while (now := time.monotonic()) < start_s + seconds:
        for descriptor, _ in epoll.poll(0.1):
            sock, request = asks[descriptor]
            data = sock.recv(65536)
            if not data.startswith(b"HTTP/1.1 200 "):
                raise ConnectionError(f"expected an answer, not {data[:200]!r}")
            answers += 1
            sock.sendall(request)
    for sock in sockets:
        sock.close()
    return answers / (now - start_s)
