"""Whatever route is asked with whatever key, shown in whatever way: nothing that the server says or logs has it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from server.serving import FAST, serving, settings
from simserve.server.app import build_app
from simserve.server.auth import Token, TokenStore, sign
from simserve.server.logs import set_up_logging
from simserve.server.models import pool_of
from simserve.server.settings import LoggingSection

SECRET = "s3cr3t-0123456789abcdef0123456789"
KEYS = {
    "right": "sk-right-PLAIN123",
    "hashed": "sk-hashed-PLAIN234",
    "chat alone": "sk-chat-PLAIN456",
    "wrong": "sk-wrong-PLAIN789",
    "signed": sign(Token("tok-1", "TOKEN-NAME", ["models"], 0), SECRET),
    "expired": sign(Token("tok-2", "TOKEN-NAME", ["all"], 0, expires_s=1), SECRET),
    "revoked": sign(Token("tok-3", "TOKEN-NAME", ["all"], 0), SECRET),
    "never made": "sk-PLAIN",
}
ENDLESS = "/dashboard/events"


def digests(key: str) -> tuple[str, ...]:
    """What would give a key away to somebody who has a guess."""
    hashed = hashlib.sha256(key.encode()).hexdigest()
    return hashed, hashed[:16]


def ways_to_show(key: str) -> Iterator[tuple[Mapping[str, str], Mapping[str, str]]]:
    """Headers and query strings that clients of one kind or another send."""
    yield {"Authorization": f"Bearer {key}"}, {}
    yield {"authorization": f"bearer {key}", "X-Request-Id": key}, {}
    yield {"Authorization": f"Basic {key}", "Cookie": f"key={key}"}, {}
    yield {"x-api-key": key, "api-key": key, "User-Agent": key, "Referer": f"http://x/{key}"}, {}
    yield {}, {"key": key, "api_key": key, "model": key}


@pytest.fixture
def log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Path]:
    """The file that everything is logged to, beside the console, at the lowest level."""
    root, ours = logging.getLogger(), logging.getLogger("simserve")
    before = root.handlers[:], root.level, ours.level
    handlers = set_up_logging(LoggingSection(path=tmp_path / "server.log", level="debug", format="json"))
    root.setLevel(logging.DEBUG)
    yield tmp_path / "server.log"
    for handler in handlers:
        handler.close()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def routes(text: str) -> list[tuple[str, str]]:
    """Every method and path that there is, with something in place of what varies."""
    chosen = settings(text)
    found = []
    for route in build_app(pool_of(chosen), chosen).router.routes():
        assert route.resource is not None
        path = route.resource.canonical
        if route.method != "HEAD" and path != ENDLESS:
            found.append((route.method, path.replace("{model}", "x").replace("{name}", "x").replace("{id}", "x")))
    return found


def logged(log: Path) -> str:
    for handler in logging.getLogger().handlers:
        handler.flush()
    return log.read_text()


async def test_nothing_that_is_said_or_logged_has_anything_of_a_key(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TokenStore(tmp_path / "keys.json")
    for name in ("tok-1", "tok-2", "tok-3"):
        store.add(Token(name, "TOKEN-NAME", ["all"], 0))
    store.revoke("tok-3")
    text = (
        f"{FAST}auth:\n  secret_key: {SECRET}\n  store: {store.path}\n  keys:\n  - {KEYS['right']}\n"
        f"  - 'sha256:{digests(KEYS['hashed'])[0]}'\n  - {{key: {KEYS['chat alone']}, permissions: [chat]}}\n"
    )
    said: list[str] = []
    seen: set[int] = set()

    def breaks(*_: object) -> None:
        raise RuntimeError("this handler is broken")

    async with serving(text) as client:
        for method, path in (*routes(text), ("GET", "/nothing"), ("GET", f"/v1/models/{KEYS['right']}")):
            for key in KEYS.values():
                for headers, query in ways_to_show(key):
                    body = {
                        "prompt": "x",
                        "messages": [{"role": "user", "content": "x"}],
                        "max_tokens": 1,
                        "input": "x",
                    }
                    async with client.session.request(
                        method, path, params=query, headers=headers, json=body if method == "POST" else None
                    ) as response:
                        seen.add(response.status)
                        said.append(f"{response.headers} {await response.text()}")
            if path == "/sleep":
                await client.session.post("/wake_up", headers={"Authorization": f"Bearer {KEYS['right']}"})
        monkeypatch.setattr("simserve.server.bodies.parse", breaks)
        for path in ("/v1/completions", "/v1/embeddings"):
            headers = {"Authorization": f"Bearer {KEYS['right']}"}
            async with client.session.post(path, json={}, headers=headers) as response:
                said.append(f"{response.status} {await response.text()}")
    written = logged(log) + "".join(capsys.readouterr())
    assert {200, 400, 401, 403, 404} <= seen
    assert written.count("/v1/chat/completions") > 30
    for where, everything in (("logged", written), ("said", "\n".join(said))):
        for secret in (SECRET, "PLAIN", "TOKEN-NAME", "tok-1", "tok-2", "tok-3", *KEYS.values()):
            assert secret not in everything, (where, secret)
        for key in KEYS.values():
            assert not [one for one in (*digests(key), *key.split(".")) if one in everything], where
