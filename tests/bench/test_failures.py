"""Everything that can go wrong with a request: it is counted and named, and never averaged in."""

from __future__ import annotations

import asyncio
import io
import math
from time import perf_counter
from typing import Any

import pytest

from bench.asking import HELLO, outcome, outcomes
from bench.raw_server import Piece, Received, Then, chunked, raw_server, sse, whole
from simserve.bench.backends import Ask, find_backend
from simserve.bench.load.driver import Driver, Load
from simserve.bench.measure.outcome import outcome_of
from simserve.bench.wire.address import parse_address
from simserve.bench.wire.encode import encode_request
from simserve.bench.wire.exchange import Spool
from simserve.bench.wire.pool import Pool

TOKEN: dict[str, Any] = {"choices": [{"index": 0, "text": "a", "finish_reason": None}]}
LAST: dict[str, Any] = {"choices": [{"index": 0, "text": "b", "finish_reason": "length"}]}


async def failure(answer: list[Piece], **load: Any) -> tuple[str, str]:
    """The kind of failure that ``answer`` is, and what is said about it."""
    async with raw_server(lambda request: answer) as server:
        (one,) = await outcomes(server.url, "openai", load={"due_s": [0.0], **load})
    assert one.failure is not None
    return one.failure.kind, one.failure.message


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ([whole({"error": {"message": "Incorrect API key"}}, "401 Unauthorized")], "HTTP 401 Unauthorized",
         "Incorrect API key"),
        ([whole({"error": "Unauthorized"}, "401 Unauthorized")], "HTTP 401 Unauthorized", "Unauthorized"),
        ([whole({"detail": "boom"}, "500 Internal Server Error")], "HTTP 500 Internal Server Error", "boom"),
        ([whole(b"<h1>Bad Gateway</h1>", "502 Bad Gateway")], "HTTP 502 Bad Gateway", "<h1>Bad Gateway</h1>"),
        ([*chunked(*sse(TOKEN), end=b""), Then.CLOSE], "stream cut in the middle", ""),
        ([*chunked(*sse(TOKEN), end=b""), Then.RESET], "stream cut in the middle", ""),
        (chunked(*sse(TOKEN, {"error": {"message": "out of memory"}}, "[DONE]")), "error inside a 200 answer",
         "out of memory"),
        (chunked(*sse({"object": "error", "message": "no such thing", "code": 1})), "error inside a 200 answer",
         "no such thing"),
        ([whole({"error": {"message": "odd"}})], "error inside a 200 answer", "odd"),
        (chunked(*sse(TOKEN, '{"choices": [')), "malformed answer", "an event is no JSON"),
        (chunked(*sse(TOKEN)), "stream without an end", "no finish reason and no [DONE] after 1 events"),
        (chunked(*sse("[DONE]")), "empty answer", ""),
        (chunked(), "stream without an end", ""),
        ([whole(b"hello")], "malformed answer", "the answer is no JSON"),
        ([b"SSH-2.0-OpenSSH_9.6\r\n", Then.CLOSE], "not HTTP/1.1", "it begins with"),
        ([*chunked(end=b"")[:1], b"zz\r\nhello"], "not HTTP/1.1", ""),
        ([Then.RESET], "connection closed before the answer was complete", ""),
        ([Then.CLOSE], "connection closed before the answer was complete", ""),
        ([b"HTTP/1.1 200 OK\r\nContent-Le", Then.CLOSE], "connection closed before the answer was complete", ""),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", Then.CLOSE],
         "connection closed before the answer was complete", ""),
    ],
)  # fmt: skip
async def test_each_failure_has_its_name(answer: list[Piece], kind: str, message: str) -> None:
    found, said = await failure(answer)
    assert found == kind
    assert message in said


async def test_retry_after_is_kept() -> None:
    answer = [whole({"error": {"message": "slow down"}}, "429 Too Many Requests", "Retry-After: 7")]
    async with raw_server(lambda request: answer) as server:
        one = await outcome(server.url, "openai")
    assert one.failure is not None
    assert (one.failure.status, one.failure.retry_after_s) == (429, 7.0)


@pytest.mark.parametrize("before", [[], chunked(*sse(TOKEN), end=b"")])
async def test_a_server_that_stops_answering_is_given_up(before: list[Piece]) -> None:
    """With nothing said at all, and in the middle of a stream."""
    backend, now = find_backend("openai"), asyncio.get_running_loop().time
    async with raw_server(lambda request: [*before, Then.SILENCE]) as server:
        address = parse_address(server.url)
        request = encode_request(0, address, backend.path, {}, backend.encode(Ask(HELLO, "m")))
        spool, pool = Spool(io.BytesIO()), Pool(address)
        driver = Driver(Load([request], [0.0], request_timeout_s=0.2), pool, spool.write)
        running = asyncio.create_task(driver.run(perf_counter()))
        start_s = now()
        while not running.done():
            await asyncio.sleep(0.02)
            driver.check_timeouts()
        pool.close()
    assert now() - start_s >= 0.2
    (one,) = [outcome_of(exchange, backend, keep_text=True) for exchange in spool.read()]
    assert str(one.failure) == "no complete answer within --request-timeout"


async def test_a_server_that_goes_away_refuses_the_rest() -> None:
    async with raw_server(lambda request: chunked(*sse(TOKEN, LAST, "[DONE]"))) as server:
        url = server.url
    done = await outcomes(url, "openai", [HELLO] * 3)
    assert [one.failure and one.failure.kind for one in done] == ["connection refused"] * 3
    assert all(math.isfinite(one.end_s) for one in done)


async def test_good_answers_among_bad_ones_are_good() -> None:
    def answer(request: Received) -> list[Piece]:
        index = int(request.headers["x-request-id"])
        good = chunked(*sse(TOKEN, LAST, "[DONE]"))
        return [whole({}, "500 Internal Server Error")] if index % 2 else list(good)

    async with raw_server(answer) as server:
        done = await outcomes(server.url, "openai", [HELLO] * 10, {"slots_s": [0.0] * 3})
    assert [one.ok for one in done] == [True, False] * 5


async def test_no_usage_is_no_failure_but_leaves_the_count_open() -> None:
    async with raw_server(lambda request: chunked(*sse(TOKEN, LAST, "[DONE]"))) as server:
        one = await outcome(server.url, "openai")
    assert (one.ok, one.output_tokens, one.text) == (True, None, "ab")


async def test_stopping_lets_answers_finish_and_aborting_does_not() -> None:
    def answer(request: Received) -> list[Piece]:
        head, first, *rest = chunked(*sse(TOKEN, LAST, "[DONE]"))
        return [head, first, 0.1, *rest]

    backend = find_backend("openai")
    for abort, kinds in ((False, {None}), (True, {"stopped before the answer was complete"})):
        async with raw_server(answer) as server:
            address = parse_address(server.url)
            body = backend.encode(Ask(HELLO, "m"))
            requests = [encode_request(index, address, backend.path, {}, body) for index in range(50)]
            spool, pool = Spool(io.BytesIO()), Pool(address)
            driver = Driver(Load(requests, [0.0] * 50, slots_s=[0.0] * 4), pool, spool.write)
            running = asyncio.create_task(driver.run(perf_counter()))
            await asyncio.sleep(0.05)
            driver.abort() if abort else driver.stop()
            await running
            pool.close()
        done = [outcome_of(exchange, backend, keep_text=True) for exchange in spool.read()]
        assert len(done) == 4
        assert {one.failure and one.failure.kind for one in done} == kinds
