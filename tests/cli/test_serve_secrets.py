"""Whatever clients send and whatever goes wrong: nothing of a key is in any log, at any level, in any format."""

from __future__ import annotations

import json
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

from cli.test_serve import Server, running
from simserve.server.auth import Token, sign

SECRET = "s3cr3t-0123456789abcdef0123456789"
KEYS = {
    "right": "sk-right-PLAIN123",
    "chat only": "sk-chat-PLAIN456",
    "wrong": "sk-wrong-PLAIN789",
    "a word": "PLAIN words of no fashion",
    "token": sign(Token("tokid", "TOKENNAME", ["models"], 0), SECRET),
    "expired": sign(Token("tokid2", "TOKENNAME", ["all"], 0, expires_s=1), SECRET),
}


def ask(server: Server, path: str, key: str, body: bytes | None = None, fail: str = "") -> int:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "X-Request-Id": key}
    headers |= {"X-Return-Error": fail} if fail else {}
    request = urllib.request.Request(server.url + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def malformed(server: Server, key: str) -> None:
    """Requests that are no HTTP, with a key in them."""
    host, port = server.url.removeprefix("http://").split(":")
    for head in (
        f"GET /status HTTP/1.1\r\nHost: x\r\nAuthoriza tion: Bearer {key}\r\n\r\n",
        f"GET /status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\x00\r\n\r\n",
        f"Bearer {key}\r\n\r\n",
        f"GET /status?key={key} HTTP/9.9\r\nHost: x\r\n\r\n",
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: x\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(head.encode())
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass


@pytest.mark.parametrize(("log_format", "workers"), [("text", 1), ("json", 1), ("json", 2)])
def test_nothing_of_a_key_is_logged(tmp_path: Path, log_format: str, workers: int) -> None:
    log, config = tmp_path / "server.log", tmp_path / "config.yaml"
    config.write_text(
        f"logging: {{level: debug, format: {log_format}, path: {log}}}\n"
        f"server: {{workers: {workers}}}\nfailures: {{enabled: true}}\n"
        f"auth:\n  secret_key: {SECRET}\n"
        f"  keys: [{KEYS['right']}, {KEYS['a word']},"
        f" {{key: {KEYS['chat only']}, permissions: [chat], requests_per_minute: 1}}]\n"
    )
    chat = json.dumps({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}).encode()
    with running("--config", str(config)) as server:
        seen = {
            ask(server, path, key, body)
            for key in KEYS.values()
            for path, body in (
                ("/v1/models", None), ("/v1/chat/completions", chat), ("/v1/chat/completions", chat),
                ("/v1/completions", b"{"), ("/admin/config", None), ("/nothing?key=" + quote(key), None),
                ("/nothing/" + quote(key), None), (f"/v1/models/{quote(key)}", None),
            )
        }  # fmt: skip
        seen.add(ask(server, "/v1/completions", KEYS["right"], b"{}", fail="500"))
        for key in KEYS.values():
            malformed(server, key)
        assert server.stop(signal.SIGTERM) == 0
    assert seen == {200, 400, 401, 403, 404, 429, 500}
    text = server.log + log.read_text()
    assert text.count("/v1/chat/completions") >= 20
    for secret in (SECRET, "PLAIN", "TOKENNAME", "tokid", *KEYS.values(), *KEYS["token"].split("."), "Bearer"):
        assert secret not in text
    if log_format == "json":
        assert all(json.loads(line)["message"] for line in log.read_text().splitlines())
