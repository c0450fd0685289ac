"""The HTTP client as an instrument: framing, addresses, stamps, connections."""

from __future__ import annotations

import asyncio
import ssl
from array import array
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.asking import HELLO, exchanges, outcomes
from bench.raw_server import Received, Then, chunked, raw_server, sse, whole
from simserve.bench.backends.events import events_of, take_apart
from simserve.bench.wire.address import parse_address
from simserve.bench.wire.alarm import Alarm
from simserve.bench.wire.encode import Body, encode_request, multipart
from simserve.bench.wire.exchange import Finished
from simserve.bench.wire.framing import ChunkScanner, FramingError, parse_head
from simserve.bench.wire.pool import Pool
from simserve.errors import ConfigError, ServerError

TLS = Path(__file__).parent / "tls"
"""A certificate for localhost that nobody signed, and its key."""

ANSWER = sse({"choices": [{"text": "a"}]}, {"choices": [{"text": "b", "finish_reason": "stop"}]}, "[DONE]")


class TestAddress:
    @pytest.mark.parametrize(
        ("url", "authority", "target"),
        [
            ("http://127.0.0.1:8000", "127.0.0.1:8000", "/v1/completions"),
            ("localhost:9", "localhost:9", "/v1/completions"),
            ("https://api.openai.com/v1", "api.openai.com", "/v1/completions"),
            ("https://host/proxy/", "host", "/proxy/v1/completions"),
            ("http://[::1]:80", "[::1]", "/v1/completions"),
        ],
    )
    def test_a_base_url_and_a_path_make_a_target(self, url: str, authority: str, target: str) -> None:
        address = parse_address(url)
        assert (address.authority, address.target("/v1/completions")) == (authority, target)

    @pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:port", "http://host?x=1", ""])
    def test_what_is_no_address_is_said_to_be_none(self, url: str) -> None:
        with pytest.raises(ConfigError, match="not the address of a server"):
            parse_address(url)


class TestFraming:
    @given(
        parts=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
        cuts=st.lists(st.integers(min_value=0, max_value=400), max_size=8),
        trailer=st.sampled_from([b"", b"Server-Timing: x\r\n"]),
    )
    def test_chunks_are_found_however_they_are_cut(self, parts: list[bytes], cuts: list[int], trailer: bytes) -> None:
        body = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailer + b"\r\n"
        places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
        scanner = ChunkScanner()
        ends = [scanner.feed(body[start:end]) for start, end in pairwise(places)]
        assert ends == [False] * (len(ends) - 1) + [True]
        assert [body[start:end] for start, end in scanner.payload] == parts

    def test_a_head_is_read_past_a_provisional_one(self) -> None:
        head = parse_head(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Too Many\r\nRetry-After: 3\r\n\r\nrest")
        assert head is not None
        assert (head.status, head.reason, head.headers["retry-after"]) == (429, "Too Many", "3")

    @pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
    def test_what_is_no_http_is_refused(self, data: bytes) -> None:
        with pytest.raises(FramingError):
            parse_head(data)

    @given(cuts=st.lists(st.integers(min_value=1, max_value=300), max_size=12))
    def test_each_event_has_the_time_of_the_read_that_completed_it(self, cuts: list[int]) -> None:
        """However the network cuts the bytes: read i comes at time i."""
        pieces = chunked(*ANSWER)
        raw = b"".join(pieces)
        places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
        sizes = [end - start for start, end in pairwise(places)]
        times = array("d", range(len(sizes)))
        exchange = Finished(0, "", 0.0, 0.0, 0.0, 0.0, times, array("L", sizes), raw, "", "")
        events = events_of(take_apart(exchange))
        assert [event.data for event in events] == [piece[6:-2] for piece in ANSWER]
        for event in events:
            last_byte = raw.index(event.data) + len(event.data) - 1
            read = next(at for at, end in enumerate(places[1:]) if last_byte < end)
            assert event.time_s == read


class TestEncoding:
    def test_headers_given_replace_the_standard_ones(self) -> None:
        address = parse_address("http://h:1")
        request = encode_request(0, address, "/x", {"host": "other", "X-Y": "z"}, Body("text/plain", b"body"))
        lines = request.with_id("id-7").decode().split("\r\n")
        assert lines[0] == "POST /x HTTP/1.1"
        assert {"host: other", "X-Y: z", "Content-Length: 4", "x-request-id: id-7"} <= set(lines)
        assert not any(line.startswith("Host:") for line in lines)
        assert lines[-2:] == ["", "body"]

    @pytest.mark.parametrize(("name", "value"), [("A\r\nB", "x"), ("A", "x\r\nB: y"), ("", "x"), ("A", "漢")])
    def test_a_header_that_http_cannot_carry_is_refused(self, name: str, value: str) -> None:
        with pytest.raises(ConfigError, match="not an HTTP header"):
            encode_request(0, parse_address("http://h:1"), "/x", {name: value}, Body("text/plain", b""))

    def test_a_form_is_what_browsers_post(self) -> None:
        from email import message_from_bytes

        body = multipart({"model": "whisper"}, "audio.wav", "audio/wav", b"RIFF\r\n--")
        form = message_from_bytes(f"Content-Type: {body.content_type}\r\n\r\n".encode() + body.content)
        text, file = form.get_payload()
        assert (text.get_param("name", header="content-disposition"), text.get_payload()) == ("model", "whisper")
        assert (file.get_filename(), file.get_payload(decode=True)) == ("audio.wav", b"RIFF\r\n--")


class TestConnections:
    async def test_stamps_follow_the_server(self) -> None:
        """Three events 50 ms apart: the gaps between stamps are at least that, whatever else the machine does."""

        def answer(request: Received) -> list[bytes | float]:
            head, *rest = chunked(*ANSWER)
            return [head, rest[0], 0.05, rest[1], 0.05, *rest[2:]]

        async with raw_server(answer) as server:
            (one,) = await outcomes(server.url, "openai")
        assert one.ok
        assert one.sent_s >= one.ready_s >= one.due_s
        assert one.token_times_s[1] - one.token_times_s[0] >= 0.049
        assert one.end_s == one.token_times_s[1]

    async def test_one_connection_serves_one_request_after_another(self) -> None:
        async with raw_server(lambda request: chunked(*ANSWER)) as server:
            done = await outcomes(server.url, "openai", [HELLO] * 20, {"slots_s": [0.0, 0.0]})
        assert all(one.ok for one in done)
        assert server.connections == 2 + 1  # one asks whether the address is the right one
        assert [request.headers["x-request-id"] for request in server.received] == [str(index) for index in range(20)]

    async def test_a_server_that_closes_after_each_answer_gets_new_connections(self) -> None:
        def answer(request: Received) -> list[bytes | Then]:
            return [whole({"choices": [{"text": "a"}]}, "200 OK", "Connection: close"), Then.CLOSE]

        async with raw_server(answer) as server:
            done = await outcomes(server.url, "openai", [HELLO] * 5, {"slots_s": [0.0]}, stream=False)
        assert [one.ok for one in done] == [True] * 5
        assert server.connections == 5 + 1

    async def test_an_answer_without_length_ends_with_the_connection(self) -> None:
        answer = b'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{"choices":[{"text":"a"}]}'
        async with raw_server(lambda request: [answer, Then.CLOSE]) as server:
            (one,) = await outcomes(server.url, "openai", stream=False)
        assert (one.ok, one.text) == (True, "a")

    async def test_a_request_that_met_a_connection_just_closed_is_sent_again_once(self) -> None:
        seen: list[str] = []

        def answer(request: Received) -> list[bytes | Then]:
            seen.append(request.headers["x-request-id"])
            return [Then.CLOSE] if len(seen) == 2 else list(chunked(*ANSWER))

        async with raw_server(answer) as server:
            done = await outcomes(server.url, "openai", [HELLO] * 3, {"slots_s": [0.0]})
        assert [one.ok for one in done] == [True] * 3
        assert seen == ["0", "1", "1", "2"]

    async def test_bytes_that_nobody_asked_for_end_the_connection(self) -> None:
        async with raw_server(lambda request: [*chunked(*ANSWER), b"HTTP/1.1 408 Timeout\r\n\r\n"]) as server:
            done = await outcomes(server.url, "openai", [HELLO] * 2, {"slots_s": [0.0]})
        assert all(one.ok for one in done)

    async def test_large_requests_arrive_whole(self) -> None:
        from simserve.bench.sample import Sample

        long = Sample("x" * 8_000_000, 1, 1)
        async with raw_server(lambda request: chunked(*ANSWER)) as server:
            done = await outcomes(server.url, "openai", [long])
            assert len(server.received[0].json["prompt"]) == 8_000_000
        assert done[0].ok

    async def test_tls_is_spoken_and_certificates_are_looked_at(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
        async with raw_server(lambda request: chunked(*ANSWER), context) as server:
            done = await outcomes(server.url, "openai", [HELLO] * 3, {"slots_s": [0.0]}, pool={"insecure": True})
            careful = Pool(parse_address(server.url))
            with pytest.raises(ServerError, match="--insecure accepts any certificate"):
                await careful.open(1)
        assert [one.ok for one in done] == [True] * 3
        assert done[0].sent_s < done[0].token_times_s[0]

    async def test_nothing_listening_is_one_sentence(self) -> None:
        async with raw_server(lambda request: []) as server:
            url = server.url
        pool = Pool(parse_address(url))
        with pytest.raises(ServerError, match="nothing listens at http://127"):
            await pool.open(3)

    async def test_exchanges_keep_every_byte(self) -> None:
        async with raw_server(lambda request: chunked(*ANSWER)) as server:
            (one,) = await exchanges(server.url, "openai", [HELLO])
        assert one.raw == b"".join(chunked(*ANSWER))
        assert sum(one.read_bytes) == len(one.raw)
        assert len(one.times_s) == len(one.read_bytes)


async def test_an_alarm_rings_once_and_not_too_early() -> None:
    rung: list[float] = []
    alarm = Alarm(asyncio.get_running_loop(), lambda: rung.append(perf_counter()))
    start_s = perf_counter()
    alarm.set(start_s + 5.0)
    alarm.set(start_s + 0.0105)
    await asyncio.sleep(0.1)
    alarm.close()
    assert len(rung) == 1
    assert rung[0] >= start_s + 0.0105
