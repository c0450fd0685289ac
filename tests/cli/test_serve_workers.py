"""``simserve serve --workers 2``: several processes do HTTP before one engine, and nobody can tell but by the speed."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.test_serve import INT, TERM, Server, refused, rest_of, running, streaming

WORKERS = ("--workers", "2")
SETTINGS = """
models: {available: {a: {path: facebook/opt-125m}, b: {path: facebook/opt-125m}}}
auth:
  keys: [sk-all, {key: sk-few, requests_per_minute: 4, tokens_per_minute: 100}]
"""
CHAT = {"messages": [{"role": "user", "content": "Tell me something about the sea."}]}

Reply = tuple[int, dict[str, str], Any]


def ask(server: Server, path: str, body: dict[str, Any] | None = None, key: str = "sk-all", **headers: str) -> Reply:
    """One request on a connection of its own: status, headers, and the body without what differs every time."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
    try:
        response = urllib.request.urlopen(urllib.request.Request(server.url + path, data, headers), timeout=20)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        text = response.read().decode()
    if text.startswith("data: "):
        events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        return response.status, dict(response.headers), [_same(json.loads(one)) for one in events[:-1]] + events[-1:]
    return response.status, dict(response.headers), _same(json.loads(text)) if text.startswith("{") else text


def _same(body: dict[str, Any]) -> dict[str, Any]:
    for key in ("id", "created"):
        body.pop(key, None)
    for card in body["data"] if isinstance(body.get("data"), list) else []:
        card.pop("created", None)
    return body


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("workers") / "config.yaml"
    file.write_text(SETTINGS)
    return file


@pytest.fixture(scope="module")
def server(config: Path) -> Iterator[Server]:
    with running(*WORKERS, "--config", str(config)) as server:
        yield server


def workers_of(server: Server) -> list[int]:
    """The processes that do HTTP."""
    parent = server.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if b"simserve.server.workers.worker" in command_of(int(pid))]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def until(condition: Callable[[], object], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


REQUESTS: list[tuple[str, dict[str, Any] | None]] = [
    ("/v1/models", None),
    ("/v1/models/b", None),
    ("/v1/models/z", None),
    ("/health", None),
    ("/v1/chat/completions", {**CHAT, "max_tokens": 30, "seed": 1}),
    ("/v1/chat/completions", {**CHAT, "seed": 2}),
    ("/v1/chat/completions", {**CHAT, "max_tokens": 20, "n": 3, "stop": ["e"]}),
    ("/v1/chat/completions", {**CHAT, "model": "b", "max_tokens": 9, "temperature": 0}),
    ("/v1/chat/completions", {**CHAT, "model": "z"}),
    ("/v1/chat/completions", {**CHAT, "max_tokens": 0}),
    ("/v1/chat/completions", {**CHAT, "logprobs": True}),
    ("/v1/completions", {"prompt": "the same prompt again and again " * 30, "max_tokens": 3}),
    ("/v1/completions", {"prompt": "the same prompt again and again " * 30, "max_tokens": 3}),
    ("/v1/completions", {"prompt": [[5] * 40, [6] * 50], "max_tokens": 4}),
    ("/v1/completions", {"prompt": [5] * 3000}),
    ("/v1/embeddings", {"input": ["a", "b c"], "encoding_format": "float"}),
    ("/v1/load_lora_adapter", {"lora_name": "law", "lora_path": "org/law"}),
    ("/v1/load_lora_adapter", {"lora_name": "law", "lora_path": "org/law"}),
    ("/v1/completions", {"prompt": "x", "model": "law", "max_tokens": 8}),
    ("/v1/completions", {"prompt": "x", "model": "law", "max_tokens": 8, "echo": True}),
    ("/v1/unload_lora_adapter", {"lora_name": "law"}),
    ("/v1/completions", {"prompt": "x", "model": "law", "max_tokens": 8}),
    ("/admin/models", None),
    ("/nothing", None),
]


def test_the_answers_are_those_of_one_process(server: Server, config: Path) -> None:
    with running("--config", str(config)) as alone:
        for path, body in REQUESTS:
            expected, got = ask(alone, path, body), ask(server, path, body)
            assert (got[0], got[2]) == (expected[0], expected[2]), path


def test_a_stream_says_what_a_whole_answer_says(server: Server) -> None:
    whole = ask(server, "/v1/chat/completions", {**CHAT, "max_tokens": 40, "n": 2})[2]
    *events, done = ask(server, "/v1/chat/completions", {**CHAT, "max_tokens": 40, "n": 2, "stream": True})[2]
    said = ["".join(_text(event, index) for event in events) for index in range(2)]
    assert said == [choice["message"]["content"] for choice in whole["choices"]]
    assert done == "[DONE]"


def _text(event: dict[str, Any], index: int) -> str:
    return "".join(one["delta"].get("content", "") for one in event["choices"] if one["index"] == index)


def test_both_workers_answer(server: Server) -> None:
    for _ in range(40):
        ask(server, "/health")
    busy = [sum(map(int, Path(f"/proc/{pid}/stat").read_text().split()[13:15])) for pid in workers_of(server)]
    assert len(busy) == 2
    assert all(busy)


def test_the_same_request_id_at_several_workers(server: Server) -> None:
    body = {"prompt": "x", "max_tokens": 3}
    replies = [ask(server, "/v1/completions", body, **{"X-Request-Id": "mine"}) for _ in range(8)]
    assert {(status, headers["x-request-id"]) for status, headers, _ in replies} == {(200, "mine")}


def response(server: Server, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """One request about responses, on a connection of its own, so that any worker may have it."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": "Bearer sk-all", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/v1/responses{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_a_load_report_is_of_the_parent_s_engine(server: Server) -> None:
    body, asked = {"prompt": "x", "max_tokens": 3}, {"endpoint-load-metrics-format": "TEXT"}
    told = ask(server, "/v1/completions", body, **asked)[1]["endpoint-load-metrics"]
    assert told.startswith("TEXT named_metrics.kv_cache_usage_perc=")


def test_a_response_is_known_to_all_workers(server: Server) -> None:
    number = response(server, "POST", "", {"input": "Hello", "max_output_tokens": 9})[1]["id"]
    for _ in range(8):
        assert response(server, "GET", f"/{number}")[1]["usage"]["output_tokens"] == 9
        assert response(server, "POST", "", {"input": "More", "previous_response_id": number})[0] == 200
    assert response(server, "DELETE", f"/{number}")[0] == 200
    assert {response(server, "GET", f"/{number}")[0] for _ in range(8)} == {404}


def test_a_streamed_response_is_known_to_all_workers_as_soon_as_it_has_ended(server: Server) -> None:
    for _ in range(8):
        events = streamed_response(server, {"input": "Hello", "max_output_tokens": 4, "stream": True})
        assert response(server, "GET", f"/{events[-1]['response']['id']}")[0] == 200


def streamed_response(server: Server, body: dict[str, Any]) -> list[dict[str, Any]]:
    headers = {"Authorization": "Bearer sk-all", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/v1/responses", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_any_worker_cancels_a_response_in_the_background(server: Server) -> None:
    body = {"input": "Hello", "background": True, "max_output_tokens": 1900}
    assert ask(server, "/clock/pause", {})[0] == 200
    begun = [response(server, "POST", "", body)[1]["id"] for _ in range(8)]
    assert {response(server, "POST", f"/{number}/cancel")[1]["status"] for number in begun} == {"cancelled"}
    assert ask(server, "/clock/start", {})[0] == 200
    until(lambda: ask(server, "/load")[2]["server_load"] == 0 and not ask(server, "/status")[2]["running_requests"])
    assert {response(server, "GET", f"/{number}")[1]["status"] for number in begun} == {"cancelled"}


def test_a_key_s_limits_hold_for_all_workers_together(server: Server) -> None:
    replies = [ask(server, "/v1/completions", {"prompt": [5], "max_tokens": 1}, key="sk-few") for _ in range(12)]
    assert Counter(status for status, _, _ in replies) == {200: 4, 429: 8}
    assert replies[0][1]["x-ratelimit-limit-requests"] == "4"
    assert int(replies[-1][1]["Retry-After"]) >= 1


def test_a_change_of_the_settings_reaches_all_workers(server: Server) -> None:
    body = {"prompt": "x", "max_tokens": 1}
    assert ask(server, "/admin/config", {"failures": {"rate": 1.0, "statuses": [502]}})[0] == 200
    assert {ask(server, "/v1/completions", body)[0] for _ in range(12)} == {502}
    ask(server, "/admin/config", {"failures": {"rate": 0.0}})
    assert {ask(server, "/v1/completions", body)[0] for _ in range(12)} == {200}


def test_a_worker_that_dies_is_replaced_and_the_others_go_on(server: Server) -> None:
    before = workers_of(server)
    os.kill(before[0], signal.SIGKILL)
    server.read_until("ended with status -9; starting another one")
    until(lambda: len(workers_of(server)) == 2 and workers_of(server)[0] != before[0])

    def answered() -> bool:
        try:
            return {ask(server, "/v1/completions", {"prompt": "x", "max_tokens": 1})[0] for _ in range(10)} == {200}
        except (urllib.error.URLError, ConnectionError):
            return False  # the dead worker's share of new connections, until the system has noticed

    until(answered)
    assert before[1] in workers_of(server)


def test_a_response_in_the_background_fails_with_its_worker(server: Server) -> None:
    assert ask(server, "/clock/pause", {})[0] == 200
    begun = [response(server, "POST", "", {"input": "Hello", "background": True})[1]["id"] for _ in range(4)]
    before = workers_of(server)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(workers_of(server)) == 2 and not set(workers_of(server)) & set(before))

    def told(path: str) -> Any:
        try:
            return ask(server, path, {} if path == "/clock/start" else None)[2]
        except OSError:
            return {}  # the dead workers' share of new connections, until the system has noticed

    until(lambda: "clock_s" in told("/clock/start"))
    for number in begun:
        until(lambda number=number: told(f"/v1/responses/{number}").get("status") == "failed")
        until(lambda number=number: "died" in told(f"/v1/responses/{number}").get("error", {}).get("message", ""))


class TestEnd:
    """What a signal does, with workers."""

    def test_sigterm_lets_a_stream_end(self) -> None:
        with running(*WORKERS, "--time-scale", "1", "--shutdown-grace", "20") as server:
            with streaming(server, tokens=100) as client:
                server.process.send_signal(TERM)
                rest = rest_of(client)
            assert server.process.wait(timeout=20) == 0
        assert '"finish_reason":"length"' in rest
        assert "shutting down" not in rest

    @pytest.mark.parametrize("signals", [[INT], [TERM, TERM]])
    def test_ctrl_c_or_a_second_signal_ends_it_at_once(self, signals: list[int]) -> None:
        with running(*WORKERS, "--time-scale", "1", "--shutdown-grace", "60") as server:
            workers = workers_of(server)
            with streaming(server, tokens=100_000) as client:
                for signum in signals[:-1]:
                    server.process.send_signal(signum)
                    server.read_until("Shutting down")
                server.process.send_signal(signals[-1])
                assert "The server is shutting down" in rest_of(client)
            assert server.process.wait(timeout=20) == 0
        assert not any(map(command_of, workers))

    def test_a_killed_parent_takes_its_workers_along(self) -> None:
        with running(*WORKERS) as server:
            workers = workers_of(server)
            assert len(workers) == 2
            server.process.kill()
            until(lambda: not any(b"workers.worker" in command_of(pid) for pid in workers))


def test_a_client_that_hangs_up_frees_its_blocks_in_the_parent() -> None:
    with running(*WORKERS, "--time-scale", "1") as server:
        with streaming(server, tokens=100_000):
            until(lambda: server.get("/status")["running_requests"] == 1)
        until(lambda: server.get("/status")["running_requests"] == 0)
        assert server.get("/status")["aborted_requests"] == 1
        with streaming(server, tokens=100_000):
            for pid in workers_of(server):
                os.kill(pid, signal.SIGKILL)
        server.read_until("starting another one")
        until(lambda: len(workers_of(server)) == 2)
        until(lambda: _status(server).get("aborted_requests") == 2)


def _status(server: Server) -> dict[str, object]:
    try:
        return server.get("/status")
    except (urllib.error.URLError, ConnectionError):
        return {}


def test_a_real_model_answers_through_workers() -> None:
    pytest.importorskip("torch", reason="the real engine needs torch: pip install simserve[torch]")
    body = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 4, "logprobs": 1}
    with running(*WORKERS, "--engine", "torch", "--device", "cpu") as server:
        status, _, answer = ask(server, "/v1/completions", body)
        assert status == 200
        assert answer["choices"][0]["text"].startswith(" there was")
        assert len(answer["choices"][0]["logprobs"]["tokens"]) == 4
        *events, _ = ask(server, "/v1/completions", {**body, "stream": True})[2]
        assert "".join(event["choices"][0]["text"] for event in events) == answer["choices"][0]["text"]
        vectors = ask(server, "/v1/embeddings", {"input": ["a"], "encoding_format": "float"})[2]["data"]
        assert sum(number**2 for number in vectors[0]["embedding"]) == pytest.approx(1, rel=1e-3)


def test_workers_that_cannot_live_end_the_server_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'simserve.server.workers.worker' in sys.orig_argv:\n    os._exit(3)\n"
    )
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    assert "ends as soon as it is started (status 3)" in refused(*WORKERS, "--port", "0", PYTHONPATH=path)
