"""The smoke test's parts: waiting, noticing death, judging answers, cleaning up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bench.raw_server import Piece, Received, chunked, in_thread, sse, whole
from simserve.bench.server_facts import Server
from simserve.bench.smoke.checks import Check, run_checks
from simserve.bench.smoke.child import ServerProcess, check_port, dtype_of, our_server, started
from simserve.bench.smoke.wait import wait_until_healthy
from simserve.bench.wire.address import parse_address
from simserve.errors import ConfigError, ServerError

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
MODELS = {"data": [{"id": "a-model", "max_model_len": 2048}]}
COMPLETION = {"choices": [{"text": " Paris"}], "usage": USAGE}
CHAT = {"choices": [{"message": {"content": "Hello!"}}], "usage": USAGE}


def delta(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


STREAM = chunked(*sse(delta("Once"), delta(" more"), delta("", "stop"), {"choices": [], "usage": USAGE}, "[DONE]"))


@contextmanager
def serving(answers: dict[str, list[Piece]]) -> Iterator[Server]:
    """A server with these answers by path; a stream goes by the path ``stream``."""

    def answer(request: Received) -> list[Piece]:
        path = "stream" if b'"stream":true' in request.body else request.path
        return answers.get(path, [whole({"error": "not here"}, "404 Not Found")])

    with in_thread(answer) as server:
        yield Server(parse_address(server.url), {})


GOOD = {
    "/health": [whole(b"")], "/v1/models": [whole(MODELS)], "/v1/completions": [whole(COMPLETION)],
    "/v1/chat/completions": [whole(CHAT)], "stream": STREAM,
}  # fmt: skip


def checks(**answers: list[Piece]) -> dict[str, Check]:
    """The checks by name, where some answers are others than good ones."""
    with serving(GOOD | {path.replace("__", "/"): answer for path, answer in answers.items()}) as server:
        return {check.name: check for check in run_checks(server, None, lambda check: None)}


class TestChecks:
    def test_good_answers_pass_and_are_shown_with_their_tokens(self) -> None:
        found = checks()
        assert all(check.passed for check in found.values())
        assert list(found) == ["models", "completion", "chat", "streaming"]
        assert (found["models"].answered, found["models"].detail) == ("a-model", "up to 2,048 tokens")
        assert (found["completion"].answered, found["completion"].tokens) == ("Paris", "3 + 2 tokens")
        assert found["streaming"].answered == "Once more"
        assert "2 chunks" in found["streaming"].detail

    @pytest.mark.parametrize(
        ("path", "answer", "name", "said"),
        [
            ("__v1__models", [whole({"data": []})], "models", "no model in the list"),
            ("__v1__completions", [whole({"error": {"message": "no"}}, "500 Oops")], "completion", "status 500"),
            ("__v1__completions", [whole({"choices": [{"text": ""}], "usage": USAGE})], "completion", "no text"),
            ("__v1__completions", [whole({"choices": [{"text": "a"}]})], "completion", "no usage"),
            ("__v1__chat__completions", [whole(b"<html>")], "chat", "no text"),
            ("stream", chunked(*sse(delta("all", "stop"), {"choices": [], "usage": USAGE}, "[DONE]")), "streaming",
             "in 1 chunk"),
            ("stream", chunked(*sse(delta("a"), delta("b", "stop"), "[DONE]")), "streaming", "no usage"),
            ("stream", chunked(*sse(delta("a"), delta("b", "stop"), {"choices": [], "usage": USAGE})), "streaming",
             "does not end with [DONE]"),
            ("stream", chunked(*sse(delta("a"), {"error": {"message": "broken"}})), "streaming", "broken"),
        ],
    )  # fmt: skip
    def test_each_bad_answer_fails_its_own_check(self, path: str, answer: list[Piece], name: str, said: str) -> None:
        found = checks(**{path: answer})
        assert [check.name for check in found.values() if not check.passed] == [name]
        assert said in found[name].detail

    def test_a_model_that_is_not_there(self) -> None:
        with serving(GOOD) as server:
            found = run_checks(server, "another", lambda check: None)
        assert "another is not among them" in found[0].detail

    def test_a_server_that_went_away_fails_everything_and_raises_nothing(self) -> None:
        with serving(GOOD) as server:
            pass
        assert [check.passed for check in run_checks(server, None, lambda check: None)] == [False] * 4


class TestWaiting:
    def test_a_line_every_ten_seconds_until_it_is_well(self) -> None:
        said: list[str] = []
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        server = Server(parse_address("http://127.0.0.1:9"), {})  # nothing listens on "discard"
        with pytest.raises(ServerError, match="not well within --timeout 35 s"):
            wait_until_healthy(server, None, 35.0, said.append, lambda: now[0], sleep)
        assert [line.split(",")[1].split()[0] for line in said] == ["10", "20", "30"]

    @pytest.mark.parametrize("answers", [GOOD, {path: answer for path, answer in GOOD.items() if path != "/health"}])
    def test_health_or_else_models(self, answers: dict[str, list[Piece]]) -> None:
        with serving(answers) as server:
            assert wait_until_healthy(server, None, 5.0, lambda line: None) < 5.0

    def test_an_unhealthy_server_is_quoted(self) -> None:
        sick = {"/health": [whole({}, "503 Service Unavailable")]}
        with serving(sick) as server, pytest.raises(ServerError, match="it answers 503"):
            wait_until_healthy(server, None, 0.3, lambda line: None)

    def test_a_child_that_dies_is_noticed_at_once_with_its_last_lines(self) -> None:
        code = "import sys; print('\\n'.join(f'line {n}' for n in range(50))); sys.exit(3)"
        server = Server(parse_address("http://127.0.0.1:9"), {})
        with started([sys.executable, "-c", code]) as child, pytest.raises(ServerError) as error:
            wait_until_healthy(server, child, 60.0, lambda line: None)
        assert "ended with exit code 3" in str(error.value)
        assert "line 49" in str(error.value)
        assert "line 29" not in str(error.value)


class TestChild:
    def test_it_and_all_that_it_started_are_gone_afterwards(self, tmp_path: Any) -> None:
        """A server that ignores politeness and has a child of its own."""
        code = (
            "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
            f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); print('up', flush=True); time.sleep(600)"
        )
        server = ServerProcess([sys.executable, "-c", code])
        while "up" not in server.last_lines():
            time.sleep(0.02)
        grandchild = int((tmp_path / "pid").read_text())
        import simserve.bench.smoke.child as module

        patience, module.POLITE_S = module.POLITE_S, 0.3
        try:
            server.stop()
        finally:
            module.POLITE_S = patience
        assert server.exit_code is not None
        assert not _lives(grandchild)

    def test_a_command_that_does_not_exist_is_one_sentence(self) -> None:
        with pytest.raises(ConfigError, match="cannot start 'no-such-command --x'"):
            ServerProcess(["no-such-command", "--x"])

    def test_a_port_that_is_taken_is_said_before_anything_starts(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ConfigError, match=f"port {port} is already in use"):
                check_port("127.0.0.1", port)
        check_port("127.0.0.1", port)

    @pytest.mark.parametrize(
        ("model", "dtype"),
        [
            ("Qwen/Qwen3-8B", "auto"),
            ("Qwen/Qwen2.5-7B-Instruct-AWQ", "half"),
            ("TheBloke/Llama-2-7B-GPTQ", "half"),
            ("org/model-bf16", "bfloat16"),
            ("org/model-fp32", "float32"),
        ],
    )
    def test_the_number_format_follows_from_the_name(self, model: str, dtype: str) -> None:
        assert dtype_of(model) == dtype

    def test_options_mean_what_they_mean_for_vllm(self) -> None:
        command = our_server("opt-125m", 9000, devices=2, max_model_len="4k", memory_share=0.8, hardware="L4")
        assert " ".join(command[3:]) == (
            "serve --host 127.0.0.1 --port 9000 --model opt-125m --dtype auto --hardware L4 --tensor-parallel-size 2"
            " --max-model-len 4k --gpu-memory-utilization 0.8"
        )


def _lives(pid: int) -> bool:
    """Whether the process runs; one that is over and waits for its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return not state.strip().startswith("Z") and bool(state.strip())
