"""``simserve serve`` as people run it: a process that listens, answers, and goes away when told to."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "simserve", "serve"]
START_S = 60

WITHOUT_TORCH = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, path=None, target=None: None if name == "torch" else find(name, path, target)
"""
"""As sitecustomize.py, makes an interpreter find no torch."""


class Server:
    """A running ``simserve serve``: its process, its URL and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log = ""
        self.read_until("Listening on")
        self.url = re.search(r"Listening on (http://\S+)", self.log)[1].replace("0.0.0.0", "127.0.0.1")

    def read_until(self, text: str) -> None:
        while text not in self.log:
            line = self.process.stdout.readline()
            assert line, f"it ended without saying {text!r}: {self.log}"
            self.log += line

    def get(self, path: str) -> dict[str, object]:
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            return json.load(response)

    def complete(self, **fields: object) -> dict[str, object]:
        body = json.dumps({"prompt": "hello"} | fields).encode()
        request = urllib.request.Request(f"{self.url}/v1/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def stop(self, signum: int) -> int:
        self.process.send_signal(signum)
        rest, _ = self.process.communicate(timeout=5)
        self.log += rest
        return self.process.returncode


@contextmanager
def running(*options: str, **environment: str) -> Iterator[Server]:
    """The server on a free port of this machine; a simulated one at infinite speed unless ``options`` say otherwise."""
    speed = [] if "torch" in options else ["--time-scale", "inf"]
    process = subprocess.Popen(
        [*COMMAND, "--host", "127.0.0.1", "--port", "0", *speed, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    watchdog = threading.Timer(START_S, process.kill)
    watchdog.start()
    try:
        with process:
            server = Server(process)
            watchdog.cancel()  # it is up; how long it is needed is for the test to say
            yield server
            process.kill()
    finally:
        watchdog.cancel()
        process.kill()


def refused(*options: str, **environment: str) -> str:
    """The one sentence with which ``simserve serve`` refuses; exit code 2 and nothing on stdout."""
    done = subprocess.run(
        [*COMMAND, *options],
        capture_output=True,
        text=True,
        timeout=START_S,
        env={**os.environ, **environment},
    )
    assert (done.returncode, done.stdout.count("Traceback")) == (2, 0), done
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_it_starts_serves_logs_and_ends_on_ctrl_c() -> None:
    with running("--verbose") as server:
        assert "meta-llama/Llama-3.1-8B-Instruct" in server.log
        assert "A100" in server.log
        assert re.search(r"\d+ blocks of 16 tokens", server.log)
        assert server.complete(max_tokens=7)["usage"]["completion_tokens"] == 7
        assert server.get("/status")["completed_requests"] == 1
        server.read_until("Service is idle")
        assert server.stop(signal.SIGINT) == 0
    assert re.search(r"Added request: input_len=\d+, output_len=7\n", server.log)
    assert re.search(r"\[\d+\.\d{3}s\] Service is idle, waiting for requests\.\.\.\n", server.log)
    assert "Traceback" not in server.log
    with pytest.raises(ProcessLookupError):
        os.kill(server.process.pid, 0)


def connected(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


@contextmanager
def streaming(server: Server, tokens: int) -> Iterator[socket.socket]:
    """A client in the middle of a stream."""
    with connected(server) as client:
        body = json.dumps({"prompt": "hello", "max_tokens": tokens, "stream": True}).encode()
        head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(b"POST /v1/completions HTTP/1.1\r\n" + head.encode() + body)
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        yield client


def rest_of(client: socket.socket) -> str:
    return b"".join(iter(lambda: client.recv(65536), b"")).decode()


def test_sigterm_lets_a_stream_end_and_nobody_new_in() -> None:
    with running("--time-scale", "1", "--shutdown-grace", "20") as server:
        with streaming(server, tokens=100) as client:
            server.process.send_signal(signal.SIGTERM)
            server.read_until("Shutting down")
            with pytest.raises(urllib.error.URLError):
                server.get("/health")
            rest = rest_of(client)
        assert server.process.wait(timeout=10) == 0
    assert rest.rstrip().endswith("data: [DONE]\n\n\r\n0")
    assert '"finish_reason":"length"' in rest
    assert "shutting down" not in rest


def test_sigterm_ends_a_stream_that_is_too_long() -> None:
    with running("--time-scale", "1", "--shutdown-grace", "0.3") as server, streaming(server, tokens=100_000) as client:
        assert server.stop(signal.SIGTERM) == 0
        assert "The server is shutting down" in rest_of(client)
    assert "1 requests did not end in time and are cut off" in server.log


TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize("signals", [[INT], [TERM, TERM], [TERM, INT]])
def test_ctrl_c_or_a_second_signal_ends_it_at_once(signals: list[int]) -> None:
    with running("--time-scale", "1", "--shutdown-grace", "60") as server, streaming(server, tokens=100_000):
        for signum in signals[:-1]:
            server.process.send_signal(signum)
            server.read_until("Shutting down")
        assert server.stop(signals[-1]) == 0


def test_every_flag_by_the_names_users_know() -> None:
    flags = "--idle-mode --http_host 127.0.0.1 --http_port 0 --model-name facebook/opt-125m --hardware H100"
    with running(*flags.split(), "--npu-num", "2", "--npu-mem", "40", "--verbose") as server:
        assert server.get("/v1/models")["data"][0]["id"] == "facebook/opt-125m"
        engine = server.get("/status")["engine"]
    assert engine["tensor_parallel_size"] == 2
    assert engine["hardware_profile"].startswith("H100")


def test_the_name_that_clients_use() -> None:
    with running("--served-model-name", "gpt-4o", "gpt-4o-mini") as server:
        assert server.complete(model="gpt-4o-mini", max_tokens=1)["model"] == "gpt-4o"


def test_the_model_from_the_environment() -> None:
    with running(LLMSERVINGSIM_MODEL="facebook/opt-125m") as server:
        assert server.get("/v1/models")["data"][0]["id"] == "facebook/opt-125m"


def test_a_file_the_environment_and_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("models: {default: facebook/opt-125m}\ninference: {max_batch_size: 7}\nengine: {block_size: 8}")
    with running("--config", str(file), "--max-num-seqs", "5", SIMSERVE_ENGINE__BLOCK_SIZE="32") as server:
        engine = server.get("/status")["engine"]
    assert (engine["model"], engine["max_num_seqs"], engine["block_size"]) == ("facebook/opt-125m", 5, 32)


def test_a_file_that_the_environment_names(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("server: {prot: 8000}")
    sentence = refused(SIMSERVE_CONFIG=str(file))
    assert sentence == f"simserve: {file}, line 1: server.prot is not a key; did you mean server.port?\n"


def test_a_busy_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sentence = refused("--host", "127.0.0.1", "--port", str(port))
    assert f"port {port} is already in use" in sentence
    assert "--port" in sentence


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "cpu"], "--device means nothing to the simulated engine"),
        (["--time-scale", "0"], "--time-scale: input should be greater than 0"),
        (["--time-scale", "nan"], "--time-scale: input should be greater than 0"),
        (["--port", "99999"], "--port: input should be less than or equal to 65535"),
        (["--block-size", "0"], "--block-size must be at least 1"),
        (["--config", "no-such.yaml"], "no-such.yaml cannot be read"),
        (["--preload", "gpt-9"], "models.preload: there is no model gpt-9"),
        (["--model", "no-such-model"], "no-such-model"),
    ],
)
def test_what_cannot_be_is_one_sentence(options: list[str], said: str) -> None:
    assert said in refused(*options)


class TestTheRealEngine:
    def test_without_a_model_the_one_that_ships_answers(self) -> None:
        pytest.importorskip("torch", reason="the real engine needs torch: pip install simserve[torch]")
        with running("--engine", "torch", "--device", "cpu") as server:
            assert "simserve/tiny-chat" in server.log
            assert re.search(r"Device +cpu, torch", server.log)
            answer = server.complete(prompt="Once upon a time", temperature=0, max_tokens=4)
            assert answer["choices"][0]["text"].startswith(" there was")
            assert server.stop(signal.SIGTERM) == 0
        assert "Traceback" not in server.log

    def test_without_torch_it_says_how_to_get_it(self, tmp_path: Path) -> None:
        (tmp_path / "sitecustomize.py").write_text(WITHOUT_TORCH)
        path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
        assert "pip install simserve[torch]" in refused("--engine", "torch", PYTHONPATH=path)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--hardware", "A100"], "--hardware means nothing to the torch engine"),
            (["--time-scale", "2"], "--time-scale means nothing to the torch engine"),
            (["--threads", "0"], "--threads: input should be greater than or equal to 1"),
            (["--front-end", "vllm-v1"], "--front-end can be simulated and not run"),
            (["-tp", "2"], "one device"),
            (["--model", "facebook/opt-125m"], "no tokenizer.json"),
            (["--max-model-len", "4096"], "2048"),
        ],
    )
    def test_what_it_cannot_do_is_one_sentence(self, options: list[str], said: str) -> None:
        pytest.importorskip("torch", reason="the real engine needs torch: pip install simserve[torch]")
        assert said in refused("--engine", "torch", *options)


def test_a_console_that_nobody_reads_stops_nothing() -> None:
    """Its pipe is full after some hundred requests; thousands are answered."""
    with running("--verbose") as server, connected(server) as connection:
        connection.settimeout(START_S)
        answers = connection.makefile("rb")
        for _ in range(3000):
            connection.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            length = 0
            while (line := answers.readline()) != b"\r\n":
                length = int(line.split()[1]) if line.lower().startswith(b"content-length") else length
            answers.read(length)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=START_S) == 0
        assert 100 < server.process.stdout.read().count('"GET /version" 200') < 3000
