"""Clients that behave badly, one kind a function, and one that behaves well and measures what the others do to it.

Each bad one does its worst once and returns; ``soak.py`` calls them over and over, many at a time.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

HOST = "127.0.0.1"
KEY = "sk-soak-0123456789abcdef"
READ_BYTES = 65536
PATIENCE_S = 30.0
NICE = 10
"""The abusers' own work must not keep the server, or who measures it, from the processor: elsewhere they would have
machines of their own."""


class KeyWasGuessedError(Exception):
    """The worst that could happen."""


def request_bytes(path: str, body: bytes, *headers: str, authorization: str = f"Bearer {KEY}") -> bytes:
    about_body = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: {authorization}", *about_body]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def completion(rng: random.Random, **more: object) -> bytes:
    """A request that is in order, of random size."""
    tokens = rng.choice([3, 30, 300])
    fields = {"prompt": [rng.randrange(100)] * rng.randrange(1, 2000), "max_tokens": tokens, "stream": True}
    return json.dumps(fields | more).encode()


async def hang_up_anywhere(port: int, rng: random.Random) -> None:
    """Close or reset the connection after any byte of the request, or of the answer."""
    data = request_bytes("/v1/completions", completion(rng, stream=rng.random() < 0.7))
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        if rng.random() < 0.4:
            writer.write(data[: rng.randrange(len(data))])
            await writer.drain()
        else:
            writer.write(data)
            left = rng.choice([1, 100, 5_000, 50_000])
            while left > 0:
                async with asyncio.timeout(rng.uniform(0.01, 2.0)):
                    got = await reader.read(min(left, READ_BYTES))
                if not got:
                    break
                left -= len(got)
    except TimeoutError:
        pass
    finally:
        if rng.random() < 0.5:  # a reset instead of an orderly end
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()


async def read_slowly(port: int, rng: random.Random) -> None:
    """Take an answer a few bytes at a time, over a socket that buffers next to nothing, and lose interest."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(sock, (HOST, port))
        body = completion(rng, max_tokens=rng.choice([300, 3000]), n=rng.choice([1, 4]))
        await loop.sock_sendall(sock, request_bytes("/v1/completions", body))
        end_s = time.monotonic() + rng.uniform(1, 15)
        while time.monotonic() < end_s:
            await asyncio.sleep(0.2)
            async with asyncio.timeout(5):
                if not await loop.sock_recv(sock, rng.randrange(1, 200)):
                    break
    except TimeoutError:
        pass
    finally:
        sock.close()


async def send_nonsense(port: int, rng: random.Random) -> None:
    """Bodies that are huge, malformed or deep; wrong methods, paths, headers and encodings; bytes that are not HTTP."""
    deep = b"[" * 100_000
    huge = b'{"prompt": "' + b"x" * rng.choice([100_000, 5_000_000, 40_000_000]) + b'"}'
    json_bodies = [
        b"", b"{", b"null", b"[]", b'{"prompt": NaN}', b"\xff\xfe\x00", deep, huge, rng.randbytes(1000),
        b'{"prompt": "a", "max_tokens": -1}', b'{"prompt": [[[]]]}', b'{"prompt": "\\ud800", "max_tokens": 5}',
        b'{"prompt": "a", "n": 100000, "max_tokens": 100000}', b'{"messages": [{"role": "user"}]}',
        b'{"prompt": "a", "stop": ["", 3, null]}', json.dumps({"prompt": ["a"] * 5000}).encode(),
    ]  # fmt: skip
    path = rng.choice(["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/sleep?level=9", "/clock/speed"])
    raw = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%00%ff/../../etc HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/models HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        rng.randbytes(rng.randrange(1, 5000)),
    ]
    data = rng.choice(raw) if rng.random() < 0.4 else request_bytes(path, rng.choice(json_bodies))
    await _exchange(port, data)


async def guess_keys(port: int, rng: random.Random) -> None:
    """Try keys by the dozen over one connection."""
    for _ in range(20):
        guess = f"{rng.choice(['Bearer', 'Basic', ''])} {rng.choice(['sk-', KEY[:-1], ''])}{rng.randbytes(12).hex()}"
        body = completion(rng, max_tokens=1, stream=False)
        if b" 200 " in (await _exchange(port, request_bytes("/v1/completions", body, authorization=guess)))[:20]:
            raise KeyWasGuessedError(f"the server took {guess!r} for a key")


async def look_around(port: int, rng: random.Random) -> None:
    """Ask for all that can be looked at, and leave in the middle of what goes on for ever."""
    path = rng.choice(["/metrics", "/status", "/trace", "/dashboard", "/dashboard/events", "/v1/models", "/clock"])
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(rng.uniform(0.1, 3)):
            while await reader.read(READ_BYTES):
                pass
    except TimeoutError:
        pass
    finally:
        writer.close()


async def _exchange(port: int, data: bytes) -> bytes:
    """Send all of ``data``, unless the server has had enough, and read the beginning of its answer."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(data)
            writer.write_eof()
            _, answer = await asyncio.gather(writer.drain(), reader.read(READ_BYTES), return_exceptions=True)
            return answer if isinstance(answer, bytes) else b""
    except TimeoutError:
        return b""
    finally:
        writer.close()


Behave = Callable[[int, random.Random], Awaitable[None]]

BAD_CLIENTS: dict[str, tuple[Behave, int]] = {
    "hang up anywhere": (hang_up_anywhere, 12),
    "read slowly": (read_slowly, 20),
    "send nonsense": (send_nonsense, 3),
    "guess keys": (guess_keys, 3),
    "look around": (look_around, 4),
}
"""By name, with how many of them there are at a time."""


@dataclass
class Manners:
    """What well-behaved clients met with: how late first and last tokens were read, how many answers were in order."""

    late_s: list[float] = field(default_factory=list)
    answers: int = 0
    failures: list[str] = field(default_factory=list)


class GoodClient:
    """Asks for streams, one after the other; the server's clock showed 0 at ``started_wall_s`` of ours."""

    def __init__(self, port: int, started_wall_s: float) -> None:
        self.seen = Manners()
        self._port = port
        self._started_wall_s = started_wall_s

    async def ask(self, rng: random.Random) -> None:
        tokens = rng.randrange(20, 80)
        fields = {"max_tokens": tokens, "stream_options": {"include_metrics": True}}
        reader, writer = await asyncio.open_connection(HOST, self._port)
        read_s: list[float] = []
        metrics = None
        try:
            writer.write(request_bytes("/v1/completions", completion(rng, **fields), "Connection: close"))
            async for line in reader:
                if line.startswith(b"data: {"):
                    read_s.append(time.monotonic())
                    metrics = json.loads(line[6:]).get("metrics", metrics)
        except OSError as error:
            self.seen.failures.append(f"{type(error).__name__} ({error}) after {len(read_s)} chunks of {tokens}")
            return
        finally:
            writer.close()
        if metrics is None or len(read_s) != tokens + 1:  # the metrics come in a chunk of their own
            self.seen.failures.append(f"{len(read_s)} chunks for {tokens} tokens")
            return
        self.seen.answers += 1
        for name, at in (("first_token_s", 0), ("finish_s", tokens - 1)):
            self.seen.late_s.append(read_s[at] - self._started_wall_s - metrics[0][name])


def behave_well(port: int, started_wall_s: float, clients: int, seconds: float) -> Manners:
    """Be ``clients`` good clients for so long, in a process that has nothing else to do."""

    async def all_of_them() -> Manners:
        good = GoodClient(port, started_wall_s)
        until_s = time.monotonic() + seconds
        await asyncio.gather(*(over_and_over(good.ask, until_s, number) for number in range(clients)))
        return good.seen

    return asyncio.run(all_of_them())


def behave_badly(port: int, seconds: float, seed: int) -> Counter[str]:
    """Be all bad clients for so long, in a process that makes way for others; returns who did how much."""
    os.nice(NICE)
    rng = random.Random(seed)
    done: Counter[str] = Counter()

    async def all_of_them() -> None:
        until_s = time.monotonic() + seconds
        bad = [
            over_and_over(_counted(name, behave, port, done), until_s, rng.random())
            for name, (behave, count) in BAD_CLIENTS.items()
            for _ in range(count)
        ]
        await asyncio.gather(*bad)

    asyncio.run(all_of_them())
    return done


def _counted(name: str, behave: Behave, port: int, done: Counter[str]) -> Callable[[random.Random], Awaitable[None]]:
    async def once(rng: random.Random) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):  # the server may have had enough of it
            await behave(port, rng)
        done[name] += 1

    return once


async def over_and_over(act: Callable[[random.Random], Awaitable[None]], until_s: float, seed: float) -> None:
    """Do it again until the time is up, not in step with others."""
    rng = random.Random(seed)
    await asyncio.sleep(rng.random() * 2)
    while time.monotonic() < until_s:
        await act(rng)
