"""``simserve smoke`` as people run it: it starts what it needs and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from cli.test_serve import running
from simserve.bench.smoke import wait
from simserve.cli.main import main
from simserve.cli.smoke import _port_in

COMMAND = [sys.executable, "-m", "simserve", "smoke"]
SERVE = f"{sys.executable} -m simserve serve --host 127.0.0.1"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_our_server_is_started_asked_and_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert (
        main(["smoke", "opt-125m", "--port", str(port), "--hardware", "L4", "--max-len", "1024", "--gpu-util", "0.8"])
        == 0
    )
    captured = capsys.readouterr()
    assert captured.out.endswith("4/4 passed\n")
    assert captured.out.count("✓") == 4
    assert "facebook/opt-125m" in captured.out
    assert "16 tokens" in captured.out
    assert "stopping the server" in captured.err
    assert not listens(port)


@pytest.mark.parametrize("together", [True, False])
def test_any_command_is_started_on_the_port_it_names(together: bool, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    command = f"{SERVE} --http_port {port} --model simserve/tiny-llama"
    words = [command] if together else ["--", *command.split()]
    assert main(["smoke", *words]) == 0
    assert "4/4 passed" in capsys.readouterr().out
    assert not listens(port)


def test_a_server_that_runs_is_left_running(capsys: pytest.CaptureFixture[str]) -> None:
    with running("--time-scale", "1") as server:
        assert main(["smoke", "--url", server.url]) == 0
        assert "4/4 passed" in capsys.readouterr().out
        assert server.get("/status")["completed_requests"] == 3


def test_a_server_that_fails_a_check_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with running("--time-scale", "1") as server:
        assert main(["smoke", "--url", server.url, "--model", "another"]) == 1
    out = capsys.readouterr().out
    assert "0/4 passed" in out
    assert "another is not among them" in out


def test_a_server_that_dies_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "server.py").write_text("import sys\nprint('no such weights')\nsys.exit(7)\n")
    assert main(["smoke", "--port", str(free_port()), "--", sys.executable, str(tmp_path / "server.py")]) == 2
    error = capsys.readouterr().err
    assert "ended with exit code 7" in error
    assert "no such weights" in error


SERVER = """
import os, pathlib, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Answers(BaseHTTPRequestHandler):
    def do_GET(self, kind=sys.argv[3]):
        pathlib.Path("asked").write_text(self.path)
        if kind == "silent" and self.path != "/health":
            time.sleep(600)
        self.send_response(503 if kind == "sick" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    do_POST = do_GET

server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Answers)
pathlib.Path("pid").write_text(str(os.getpid()))
print("loading weights, for ever", flush=True)
time.sleep(600) if sys.argv[3] == "deaf" else server.serve_forever()
"""
"""A server that answers nothing, is never well, answers wrongly, or falls silent once it is asked something."""


def command(folder: Path, kind: str) -> list[str]:
    (folder / "server.py").write_text(SERVER)
    return ["--", sys.executable, "-u", "server.py", "--port", str(free_port()), kind]


def assert_gone(folder: Path) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("kind", "begun", "why"), [("deaf", "pid", "did not answer within 0.2 s"), ("sick", "asked", "it answers 503")]
)
def test_a_server_that_is_never_well_is_given_up_quoted_and_stopped(
    kind: str, begun: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The three minutes are over by this clock as soon as the server has been asked a few times."""
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += (tmp_path / begun).exists()
        return 1000.0 if looks > 3 else 0.0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wait, "ASK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(wait, "wait_until_healthy", partial(wait.wait_until_healthy, clock=clock))
    assert main(["smoke", *command(tmp_path, kind)]) == 2
    error = capsys.readouterr().err
    assert "simserve: the server was not well within --timeout 180 s" in error
    assert why in error
    assert "its last lines:\n  loading weights, for ever\n" in error
    assert_gone(tmp_path)


def test_a_server_that_answers_wrongly_fails_every_check_and_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["smoke", *command(tmp_path, "wrong")]) == 1
    out = capsys.readouterr().out
    assert out.count("✗") == 4
    assert "status 200 and no model in the list" in out
    assert out.count("the answer has no text") == 2
    assert out.endswith("0/4 passed\n")
    assert_gone(tmp_path)


def test_a_port_that_is_taken_is_said_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = command(tmp_path, "wrong")
    with socket.create_server(("127.0.0.1", int(words[-2]))):
        assert main(["smoke", *words]) == 2
    assert f"port {words[-2]} is already in use; stop what listens there" in capsys.readouterr().err
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("kind", "asked"), [("sick", "/health"), ("silent", "/v1/models")])
def test_what_was_started_is_stopped_on_ctrl_c_too(kind: str, asked: str, signum: int, tmp_path: Path) -> None:
    """While it waits for the server to be well, and while it waits for an answer."""
    process = subprocess.Popen(
        [*COMMAND, *command(tmp_path, kind)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "asked").exists() or (tmp_path / "asked").read_text() != asked:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signum)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert_gone(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--url http://127.0.0.1:9 --timeout 0.2", "not well within --timeout 0.2 s (nothing listens at"),
        ("--url http://127.0.0.1:9 opt-125m", "--url tests a server that runs, and opt-125m is for one to start"),
        ("--url http://127.0.0.1:9 --gpus 2", "--gpus is for one to start"),
        ("--gpus 2 -- sleep 5", "--gpus is for our own server"),
        ("--port 8001 -- sleep 5 --port 8002", "--port 8001 and the command's own 8002 differ"),
        ("-- no-such-command x", "cannot start 'no-such-command x'"),
    ],
)
def test_bad_input_is_one_sentence(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["smoke", *words.split()]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "port"),
    [("vllm serve m --port 9", 9), ("x --port=7 y", 7), ("x --http_port 5", 5), ("x", None), ("x --port auto", None)],
)
def test_where_a_command_will_listen(command: str, port: int | None) -> None:
    assert _port_in(command.split()) == port
