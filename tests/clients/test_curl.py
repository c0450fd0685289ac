"""Plain curl: what comes over the wire, byte by byte."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from clients.conftest import MODEL

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4})


def curl(*arguments: str) -> str:
    done = subprocess.run(["curl", "-sS", "--max-time", "60", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def post(url: str, body: str, *more: str) -> str:
    return curl("-H", "Content-Type: application/json", "-d", body, *more, url)


def test_a_whole_answer(url: str) -> None:
    body = json.loads(post(f"{url}/chat/completions", BODY))
    assert body["usage"]["completion_tokens"] == 4


def test_a_stream(url: str) -> None:
    streamed = json.dumps({**json.loads(BODY), "stream": True})
    said = post(f"{url}/chat/completions", streamed, "-N", "-D", "-").replace("\r", "")
    head, _, frames = said.partition("\n\n")
    assert "Content-Type: text/event-stream; charset=utf-8" in head
    events = frames.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: ") for event in events[:-1])


def test_errors_and_statuses(url: str) -> None:
    def status(path: str, *more: str) -> str:
        return curl("-o", "/dev/null", "-w", "%{http_code}", *more, url + path)

    assert status("/nothing") == "404"
    assert status("/chat/completions") == "405"
    assert status("/chat/completions", "-d", "not json") == "400"
    assert status("/models", "-I", "-X", "HEAD") == "200"
    assert curl("-o", "/dev/null", "-w", "%{http_code}", url.removesuffix("/v1") + "/health") == "200"
