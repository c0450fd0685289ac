"""Too much, too slow, too late: a clear answer, and the server goes on."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
import pytest

from server.conftest import Client
from server.fakes import ScriptedEngine
from server.serving import FAST, serving, settings
from server.test_disconnect import until
from simserve.engines.base import EngineStatus
from simserve.server.limits import Drain
from simserve.server.run import listening
from simserve.server.service import Service
from simserve.server.settings import Settings
from simserve.server.sockets import bound_sockets


@pytest.fixture
def client_of(service: Service) -> Any:
    """Opens a server over the scripted engine with the settings in a text."""

    class Opened:
        def __init__(self, text: str) -> None:
            self.settings: Settings = settings(text)
            self.drain = Drain()

        async def __aenter__(self) -> Client:
            self.server = listening(service, "127.0.0.1", 0, self.settings, self.drain)
            self.session = aiohttp.ClientSession(await self.server.__aenter__())
            return Client(self.session)

        async def __aexit__(self, *how: Any) -> None:
            await self.session.close()
            await self.server.__aexit__(*how)

    return Opened


class TestQueue:
    async def test_a_full_queue_is_503_and_says_when_to_come_back(
        self, client_of: Any, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usual = engine.status()
        waiting = 0

        def status() -> EngineStatus:
            return EngineStatus(**{**vars(usual), "waiting_requests": waiting})

        monkeypatch.setattr(engine, "status", status)
        async with client_of("server: {max_waiting_requests: 3}") as client:
            for count, expected in ((2, 200), (3, 503), (9, 503), (0, 200)):
                waiting = count
                async with client.chat(max_tokens=1) as response:
                    assert response.status == expected
                    if expected == 503:
                        assert response.headers["Retry-After"] == "1"
                        assert "queue is full" in (await response.json())["error"]["message"]

    async def test_the_real_engine_s_queue(self) -> None:
        text = "engine: {time_scale: 1}\nmodels: {default: facebook/opt-125m}\n"
        text += "inference: {max_batch_size: 1}\nserver: {max_waiting_requests: 2}"
        async with serving(text) as client:
            streams = [client.complete(max_tokens=1900, stream=True) for _ in range(3)]
            responses = []
            for stream in streams:
                responses.append(await stream.__aenter__())
                await asyncio.sleep(0.05)
            assert [response.status for response in responses] == [200, 200, 200]
            async with client.complete(max_tokens=1) as response:
                assert response.status == 503
            for response in responses:
                response.close()


class TestTime:
    async def test_a_whole_answer_that_takes_too_long_is_504(self, client_of: Any, engine: ScriptedEngine) -> None:
        engine.step_s = 0.02
        async with client_of("server: {timeout: 100 ms}") as client:
            async with client.chat(max_tokens=200) as response:
                assert response.status == 504
                assert (await response.json())["error"]["code"] == "timeout"
            await until(lambda: not engine.running)
            async with client.chat(max_tokens=1) as response:
                assert response.status == 200

    async def test_a_stream_that_takes_too_long_ends_with_an_error(
        self, client_of: Any, engine: ScriptedEngine
    ) -> None:
        engine.step_s = 0.02
        async with client_of("server: {timeout: 0.2}") as client:
            events = await client.chunks(client.chat(max_tokens=200, stream=True))
            await until(lambda: not engine.running)
        assert len(events) > 2
        assert events[-1]["error"]["code"] == "timeout"

    async def test_nothing_is_written_behind_the_error_of_a_simulated_stream(self) -> None:
        text = FAST.replace(".inf", "1") + "server: {timeout: 0.3}"
        async with serving(text) as client:
            events = await client.chunks(client.chat(max_tokens=2000, stream=True, n=4))
            status = await client.get("/status")
        assert len(events) > 10
        assert [at for at, event in enumerate(events) if "error" in event] == [len(events) - 1]
        assert events[-1]["error"]["code"] == "timeout"
        assert (status["completed_requests"], status["aborted_requests"]) == (0, 4)

    async def test_a_body_that_is_sent_too_slowly_is_408_and_its_connection_is_closed(self, client_of: Any) -> None:
        async with client_of("server: {read_timeout: 0.1}") as client:
            url = client.session._base_url
            reader, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            writer.write(b"Content-Length: 1000\r\n\r\n{")
            answer = await asyncio.wait_for(reader.read(), 5)
            writer.close()
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"was not there after 0.1 s" in answer

    @pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"])
    async def test_a_connection_that_says_nothing_more_is_closed(self, client_of: Any, sent: bytes) -> None:
        async with client_of("server: {keep_alive_timeout: 0.1}") as client:
            url = client.session._base_url
            reader, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(sent)
            await asyncio.wait_for(reader.read(), 5)
            writer.close()


class TestSize:
    async def test_max_body_size(self, client_of: Any) -> None:
        async with client_of("server: {max_body_size: 1 kB}") as client:
            async with client.complete(prompt="x" * 500, max_tokens=1) as response:
                assert response.status == 200
            async with client.complete(prompt="x" * 1500, max_tokens=1) as response:
                assert response.status == 413


class TestSockets:
    def test_accepted_connections_notice_that_a_peer_is_gone(self) -> None:
        (listener,) = bound_sockets("127.0.0.1", 0)
        with listener, socket.socket() as client:
            listener.listen()
            client.connect(listener.getsockname())
            listener.setblocking(True)
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000

    def test_a_port_can_be_shared_by_those_who_agree(self) -> None:
        (one,) = bound_sockets("127.0.0.1", 0, shared=True)
        with one:
            (other,) = bound_sockets("127.0.0.1", one.getsockname()[1], shared=True)
            other.close()

    async def test_both_addresses_of_localhost_have_the_same_port(self) -> None:
        sockets = bound_sockets("localhost", 0)
        assert len({one.getsockname()[1] for one in sockets}) == 1
        for one in sockets:
            one.close()


class TestDraining:
    async def test_who_is_inside_may_finish_and_nobody_new_comes_in(
        self, client_of: Any, engine: ScriptedEngine
    ) -> None:
        engine.step_s = 0.02
        opened = client_of("{}")
        async with opened as client:
            async with client.session.get("/health") as response:
                assert response.status == 200
            long = asyncio.create_task(client.chunks(client.chat(max_tokens=25, stream=True)))
            kept_alive = [asyncio.create_task(client.session.get("/health")) for _ in range(3)]
            await asyncio.gather(*kept_alive)
            await until(lambda: engine.running)
            waiting = asyncio.create_task(opened.drain.wait(10))
            await until(lambda: opened.drain.ending)
            async with client.session.get("/health") as response:
                assert response.status == 503
            async with client.chat() as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
                assert response.headers["Connection"] == "close"
            assert not waiting.done()
            assert len([event for event in await long if event["choices"][0]["delta"].get("content")]) == 25
            await waiting
            assert opened.drain.inside == 0

    async def test_who_looks_at_the_dashboard_is_not_waited_for(self, client_of: Any) -> None:
        opened = client_of("{}")
        async with opened as client, client.session.get("/dashboard/events") as response:
            await response.content.readline()
            await asyncio.wait_for(opened.drain.wait(10), 5)
            assert opened.drain.inside == 0
            async with client.session.get("/ping") as ping:
                assert ping.status == 503

    async def test_grace_is_not_endless(self, client_of: Any, engine: ScriptedEngine) -> None:
        engine.step_s = 0.02
        opened = client_of("{}")
        async with opened as client:
            long = asyncio.create_task(client.chunks(client.chat(max_tokens=200, stream=True)))
            await until(lambda: engine.running)
            await opened.drain.wait(0.1)
            assert opened.drain.inside == 1
            long.cancel()


async def test_a_model_that_is_being_loaded_has_a_queue_too() -> None:
    text = FAST.replace(".inf", "1") + "server: {max_waiting_requests: 2}"
    text = text.replace("facebook/opt-125m}", "facebook/opt-125m, available: {big: {path: Llama-3.1-8B}}}")
    async with serving(text) as client:
        waiting = [asyncio.create_task(_status(client, "big")) for _ in range(4)]
        done, pending = await asyncio.wait(waiting, timeout=1.0)
        assert [task.result() for task in done] == [503, 503]
        for task in pending:
            task.cancel()


async def _status(client: Client, model: str) -> int:
    async with client.complete(model=model, max_tokens=1) as response:
        return int(response.status)
