"""What those who run a server with several workers ask: whichever worker they reach, the one engine answers."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli.test_serve import TERM, Server, running
from cli.test_serve_workers import WORKERS, until, workers_of

MANY = 8
"""Requests on connections of their own: enough for both workers to get some, but for once in 128 times."""

BODY = {"prompt": [7] * 200, "max_tokens": 5}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(*WORKERS, "--model", "facebook/opt-125m", "--time-scale", "1") as server:
        yield server


def send(server: Server, path: str, body: Any = None, method: str | None = None, **headers: str) -> tuple[int, Any]:
    """One request on a connection of its own: the status, and the body as far as it is JSON."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(server.url + path, data, headers, method=method)
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        text = response.read().decode()
        return response.status, json.loads(text) if response.headers["Content-Type"] == "application/json" else text


def post(server: Server, path: str, body: Any = None, **headers: str) -> Any:
    status, answer = send(server, path, body, "POST", **headers)
    assert status == 200, answer
    return answer


def get(server: Server, path: str) -> Any:
    status, answer = send(server, path)
    assert status == 200, answer
    return answer


def total(server: Server, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    families = text_string_to_metric_families(get(server, "/metrics"))
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def test_metrics_count_what_all_workers_did(server: Server) -> None:
    names: dict[str, dict[str, str]] = {
        "vllm:request_success_total": {},
        "vllm:generation_tokens_total": {},
        "vllm:request_params_n_count": {},
        "http_requests_total": {"handler": "/v1/completions", "status": "2xx"},
        "http_request_duration_seconds_count": {"handler": "/v1/completions"},
    }
    before = {name: total(server, name, **labels) for name, labels in names.items()}
    for at in range(MANY):
        post(server, "/v1/completions", {**BODY, "stream": at % 2 == 0, "n": 2})
    http, labels = "http_requests_total", names["http_requests_total"]
    until(lambda: total(server, http, **labels) == before[http] + MANY)  # a stream is counted after its last byte
    grown = {name: total(server, name, **labels) - before[name] for name, labels in names.items()}
    assert grown == {
        "vllm:request_success_total": 2 * MANY,
        "vllm:generation_tokens_total": 2 * MANY * 5,
        "vllm:request_params_n_count": MANY,
        "http_requests_total": MANY,
        "http_request_duration_seconds_count": MANY,
    }


def test_the_load_is_that_of_all_workers(server: Server) -> None:
    post(server, "/clock/pause")
    with ThreadPoolExecutor(MANY) as pool:
        asked = [pool.submit(post, server, "/v1/completions", BODY) for _ in range(MANY)]
        until(lambda: get(server, "/load") == {"server_load": MANY})
        post(server, "/clock/start")
        for one in asked:
            one.result()
    until(lambda: get(server, "/load") == {"server_load": 0})


def test_the_clock_is_one(server: Server) -> None:
    for _ in range(MANY):
        post(server, "/clock/speed", {"time_scale": 20})
        assert get(server, "/clock")["time_scale"] == 20
        post(server, "/clock/speed", {"time_scale": 1})
        assert get(server, "/clock")["time_scale"] == 1
    assert send(server, "/clock/speed", {"time_scale": 0})[0] == 400
    assert send(server, "/clock/pause", method="POST", Origin="https://example.com")[0] == 403
    assert post(server, "/clock/start", Origin=server.url)["paused"] is False
    lateness = get(server, "/status")["lateness_ms"]
    assert lateness["tokens"] > 0


def test_asleep_at_all_workers(server: Server) -> None:
    assert post(server, "/sleep?level=1") == {"status": "sleeping"}
    assert all(get(server, "/is_sleeping")["is_sleeping"] for _ in range(MANY))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, server, "/v1/completions", BODY)
        until(lambda: get(server, "/load") == {"server_load": 1})
        assert post(server, "/wake_up") == {"status": "awake"}
        assert waiting.result()["usage"]["completion_tokens"] == 5


def test_a_prefix_is_forgotten_once_for_all(server: Server) -> None:
    def cached() -> int:
        return int(post(server, "/v1/completions", BODY)["usage"]["prompt_tokens_details"]["cached_tokens"])

    cached()
    assert {cached() for _ in range(MANY)} == {192}
    assert post(server, "/reset_prefix_cache") == {"success": True}
    assert cached() == 0


def test_the_trace_has_what_all_workers_served(server: Server) -> None:
    before = len(get(server, "/trace").splitlines())
    for _ in range(MANY):
        post(server, "/v1/completions", BODY)
    rows = [json.loads(line) for line in get(server, "/trace").splitlines()]
    assert len(rows) == before + MANY
    assert {(row["input_tokens"], row["output_tokens"]) for row in rows[before:]} == {(200, 5)}


def test_the_dashboard_is_passed_on_as_it_is(server: Server) -> None:
    with urllib.request.urlopen(server.url + "/dashboard") as response:
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert b"<script" in response.read()
    for file in ("dashboard.js", "style.css", "icon.svg"):
        assert get(server, f"/dashboard/{file}")
    assert send(server, "/dashboard/nothing.js")[0] == 404
    with urllib.request.urlopen(server.url + "/dashboard/events", timeout=30) as response:
        first = json.loads(response.readline().removeprefix(b"data: "))
        assert first["about"]["model"] == "facebook/opt-125m"
        response.readline()
        assert "running" in json.loads(response.readline().removeprefix(b"data: "))["points"][0]


def test_what_a_dead_worker_counted_stays_counted(server: Server) -> None:
    handler = {"handler": "/v1/completions"}
    post(server, "/v1/completions", BODY)
    before = total(server, "http_requests_total", **handler)
    gone, left = workers_of(server)
    os.kill(gone, signal.SIGKILL)
    until(lambda: len(workers_of(server)) == 2 and gone not in workers_of(server))
    until(lambda: send_or_none(server, "/health") == 200)
    assert left in workers_of(server)
    assert total(server, "http_requests_total", **handler) >= before


def send_or_none(server: Server, path: str) -> int | None:
    try:
        return send(server, path)[0]
    except OSError:
        return None


def test_who_looks_does_not_hold_up_the_end() -> None:
    with running(*WORKERS, "--model", "facebook/opt-125m", "--shutdown-grace", "60") as server:
        with urllib.request.urlopen(server.url + "/dashboard/events", timeout=30) as response:
            response.readline()
            server.process.send_signal(TERM)
            rest = response.read()
        assert rest.endswith(b"\n\n")
        assert server.process.wait(30) == 0
