"""``simserve smoke`` as people run it: it starts what it needs and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.test_serve import running
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


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_what_was_started_is_stopped_on_ctrl_c_too(signum: int, tmp_path: Path) -> None:
    """The server never becomes well, so the test is still waiting when it is interrupted."""
    (tmp_path / "server.py").write_text(
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    process = subprocess.Popen(
        [*COMMAND, "--port", str(free_port()), "--", sys.executable, "server.py"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert process.poll() is None
    pid = int((tmp_path / "pid").read_text())
    process.send_signal(signum)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


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
