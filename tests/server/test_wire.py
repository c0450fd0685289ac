"""Readers who are slow or gone cost a bounded buffer, and nobody else anything."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from server.test_disconnect import until
from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.server import wire
from simserve.server.run import listening
from simserve.server.service import Service
from simserve.server.simulated import simulated_service

ANSWER_TOKENS = 3_000

LONG_NAME = "model-" * 1000
"""Makes chunks long, so that the machine's socket buffers are soon full."""


@asynccontextmanager
async def served(time_scale: float) -> AsyncIterator[tuple[str, Service]]:
    service = simulated_service(
        load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("H100"), EngineOptions(), time_scale, [LONG_NAME]
    )
    async with listening(service, "127.0.0.1", 0) as url:
        yield url, service


def ask(url: str, version: str = "1.1", tokens: int = ANSWER_TOKENS, **fields: object) -> socket.socket:
    """Ask for a long answer over a socket that buffers little, and read nothing of it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = url.removeprefix("http://").split(":")
    sock.connect((host, int(port)))
    body = json.dumps({"prompt": "Tell me", "max_tokens": tokens, "stream": True, **fields}).encode()
    head = f"POST /v1/completions HTTP/{version}\r\nHost: x\r\nContent-Type: application/json\r\n"
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    sock.setblocking(False)
    return sock


async def read_all(sock: socket.socket) -> bytes:
    """Up to the end of the stream, or of the connection, orderly or not."""
    data = b""
    while b"[DONE]" not in data:
        try:
            more = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1 << 20), 20)
        except ConnectionResetError:
            break
        if not more:
            break
        data += more
    return data


def unchunked(data: bytes) -> bytes:
    """The body of an HTTP/1.1 answer, which must be framed without a mistake."""
    rest = data.partition(b"\r\n\r\n")[2]
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body += rest[:length]
        if length == 0 or len(rest) < length:
            break
        assert rest[length : length + 2] == b"\r\n"
        rest = rest[length + 2 :]
    return body


def texts(body: bytes) -> list[str]:
    events = re.findall(rb"data: (\{.*\})\n\n", body)
    return [json.loads(event)["choices"][0]["text"] for event in events]


async def test_one_who_reads_late_gets_every_word_in_fewer_pieces() -> None:
    async with served(time_scale=1000.0) as (url, service):
        prompt = {"prompt": "Tell me", "max_tokens": ANSWER_TOKENS}
        async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/completions", json=prompt) as response:
            whole = (await response.json())["choices"][0]["text"]
        sock = ask(url)
        await asyncio.sleep(0.2)
        await until(lambda: not service.engine.status().running_requests, within_s=20)  # and nothing was read
        pieces = texts(unchunked(await read_all(sock)))
        sock.close()
    assert "".join(pieces) == whole
    assert len(pieces) < ANSWER_TOKENS / 2


async def test_one_who_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "STALLED_S", 0.3)
    async with served(time_scale=50.0) as (url, service):
        sock = ask(url, tokens=50_000)
        await until(lambda: service.engine.status().aborted_requests, within_s=20)
        assert service.engine.status().kv_blocks_used == 0
        sock.close()


async def test_one_who_does_not_take_the_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "STALLED_S", 0.3)
    async with served(time_scale=1000.0) as (url, service):
        sock = ask(url)
        await asyncio.sleep(0.3)
        await until(lambda: not service.engine.status().running_requests, within_s=20)
        await asyncio.sleep(0.6)
        assert b"[DONE]" not in await read_all(sock)
        sock.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux cuts off stalled readers by itself")
async def test_one_who_does_not_take_a_whole_answer_is_cut_off_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "STALLED_S", 0.5)
    async with served(time_scale=math.inf) as (url, service):
        sock = ask(url, tokens=100_000, stream=False, n=8)
        await until(lambda: service.engine.status().completed_requests == 8, within_s=20)
        await asyncio.sleep(3)
        head, _, body = (await read_all(sock)).partition(b"\r\n\r\n")
        sock.close()
    assert len(body) < int(re.findall(rb"Content-Length: (\d+)", head)[0])


async def test_http_1_0_gets_plain_frames_and_the_end_of_the_connection() -> None:
    async with served(time_scale=1000.0) as (url, _):
        sock = ask(url, version="1.0", tokens=50)
        data = await read_all(sock)
        sock.close()
    body = data.partition(b"\r\n\r\n")[2]
    assert body.startswith(b"data: {")
    assert len(texts(body)) == 50  # a frame for each token, the last with the reason


async def test_a_kept_connection_goes_on_after_a_stream() -> None:
    async with served(time_scale=1000.0) as (url, _), aiohttp.ClientSession(url) as session:
        for tokens in (5, 7):
            body = {"prompt": "Tell me", "max_tokens": tokens, "stream": True}
            async with session.post("/v1/completions", json=body) as response:
                assert len(texts((await response.text()).encode())) == tokens
        assert session.connector is not None
        assert len(session.connector._conns) == 1


async def test_headers_and_the_last_chunk_tell_the_simulated_times() -> None:
    async with served(time_scale=100.0) as (url, _), aiohttp.ClientSession(url) as session:
        body = {"prompt": "Tell me", "max_tokens": 9}
        async with session.post("/v1/completions", json=body) as response:
            ms = {name[11:-3]: float(response.headers[name]) for name in response.headers if name.endswith("-ms")}
            assert ms["ttft"] + 8 * ms["tpot"] == pytest.approx(ms["e2e"], abs=0.01)
            assert 0 <= ms["queue"] < ms["ttft"]
            assert response.headers["x-simserve-preemptions"] == "0"
        options = {"include_usage": True, "include_metrics": True}
        body |= {"stream": True, "stream_options": options}
        async with session.post("/v1/completions", json=body) as response:
            last = (await response.text()).split("\n\n")[-3]
        chunk = json.loads(last.removeprefix("data: "))
        assert chunk["usage"]["completion_tokens"] == 9
        (metrics,) = chunk["metrics"]
        assert metrics["tpot_ms"] == pytest.approx(ms["tpot"], rel=0.01)
        assert metrics["finish_s"] - metrics["arrival_s"] == pytest.approx(metrics["e2e_ms"] / 1e3)
