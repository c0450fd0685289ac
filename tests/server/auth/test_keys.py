"""Keys over HTTP: who shows none is 401, who shows the wrong one for this is 403."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from yarl import URL

from server.conftest import Client
from server.serving import FAST, serving, settings
from simserve.errors import ConfigError
from simserve.server.app import build_app
from simserve.server.auth import KeyRing, Token, TokenStore, sign, warn_if_open
from simserve.server.auth.permissions import BY_PATH
from simserve.server.models import pool_of

SECRET = "0123456789abcdef0123456789abcdef"
KEYS = f"""
{FAST}
auth:
  keys:
  - sk-everything
  - {{key: sk-chat, permissions: [chat]}}
  - {{key: sk-complete, permissions: [completions, models]}}
  - {{key: "sha256:{hashlib.sha256(b"sk-hashed").hexdigest()}", permissions: [models]}}
  - {{key: sk-admin, permissions: [admin]}}
"""
SIGNED = f"{FAST}auth: {{secret_key: {SECRET}}}\n"

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
COMPLETE = {"prompt": "hi", "max_tokens": 1}
REQUESTS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "/v1/chat/completions": ("POST", CHAT),
    "/v1/completions": ("POST", COMPLETE),
    "/v1/models": ("GET", None),
    "/v1/models/facebook/opt-125m": ("GET", None),
    "/status": ("GET", None),
    "/v1/load_lora_adapter": ("POST", {"lora_name": "a", "lora_path": "org/a", "load_inplace": True}),
    "/dashboard": ("GET", None),
    "/dashboard/charts.js": ("GET", None),
    "/clock": ("GET", None),
    "/is_sleeping": ("GET", None),
    "/trace": ("GET", None),
    "/reset_prefix_cache": ("POST", None),
    "/clock/pause": ("POST", None),
    "/clock/start": ("POST", None),
    "/clock/speed": ("POST", {"time_scale": "inf"}),
    "/sleep": ("POST", None),
    "/wake_up": ("POST", None),
}
LOOKS = {
    "/v1/models", "/v1/models/facebook/opt-125m", "/status", "/dashboard", "/dashboard/charts.js", "/clock",
    "/is_sleeping",
}  # fmt: skip
CHANGES = {
    "/v1/load_lora_adapter", "/trace", "/reset_prefix_cache", "/clock/pause", "/clock/start", "/clock/speed", "/sleep",
    "/wake_up",
}  # fmt: skip


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def status(client: Client, path: str, headers: dict[str, str] | None = None) -> int:
    method, body = REQUESTS.get(path, ("GET", None))
    async with client.session.request(method, path, json=body, headers=headers) as response:
        if response.status >= 400:
            assert set(await response.json()) == {"error"}
        return response.status


@pytest.mark.parametrize(
    ("key", "opens"),
    [
        ("sk-everything", set(REQUESTS)),
        ("sk-chat", {"/v1/chat/completions"}),
        ("sk-complete", {"/v1/completions"} | LOOKS),
        ("sk-hashed", LOOKS),
        ("sk-admin", CHANGES),
    ],
)
async def test_a_key_opens_what_it_has_permission_for(key: str, opens: set[str]) -> None:
    async with serving(KEYS, bearer(key)) as client:
        got = {path: await status(client, path) for path in REQUESTS}
    assert got == {path: 200 if path in opens else 403 for path in REQUESTS}


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("sk-wrong"), bearer(""), bearer("sk-everything2"), {"Authorization": "sk-everything"},
     {"Authorization": "Basic sk-everything"}, bearer("sha256:" + hashlib.sha256(b"sk-hashed").hexdigest()),
     bearer("\udcff"), bearer("a" * 5000), bearer("e30.e30.e30")],
)  # fmt: skip
async def test_no_key_or_a_wrong_one_is_401_wherever_one_is_asked_for(headers: dict[str, str]) -> None:
    async with serving(KEYS) as client:
        for path in (*REQUESTS, "/nothing/here"):
            method, body = REQUESTS.get(path, ("GET", None))
            async with client.session.request(method, path, json=body, headers=headers) as response:
                assert response.status == 401, path
                assert response.headers["WWW-Authenticate"] == "Bearer"
                error = (await response.json())["error"]
                assert (error["code"], error["type"]) == ("invalid_api_key", "authentication_error")


async def test_the_scheme_may_be_written_in_any_case() -> None:
    async with serving(KEYS) as client:
        assert await status(client, "/status", {"Authorization": "bearer  sk-everything "}) == 200


async def test_health_needs_no_key_and_other_paths_if_the_settings_say_so() -> None:
    async with serving(KEYS) as client:
        assert await status(client, "/health") == 200
    async with serving(f"{FAST}auth: {{keys: [sk-x], open_paths: [/status]}}") as client:
        assert (await status(client, "/status"), await status(client, "/health")) == (200, 401)


async def test_a_path_that_does_not_exist_is_404_for_any_key() -> None:
    async with serving(KEYS, bearer("sk-chat")) as client:
        assert await status(client, "/nothing/here") == 404


@pytest.mark.parametrize("path", ["/v1/%6dodels", "//v1/models", "/v1/chat/completions/../../models", "/V1/models"])
async def test_no_spelling_of_a_path_gets_around_the_guard(path: str) -> None:
    async with serving(KEYS) as client:
        url = URL(f"{client.session._base_url.origin()}{path}", encoded=True)
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.status == 401


async def test_without_keys_in_the_settings_nobody_is_asked_for_one() -> None:
    for text in (FAST, f"{FAST}auth: {{keys: [sk-x], enabled: false}}"):
        async with serving(text) as client:
            assert await status(client, "/v1/models") == 200
            assert await status(client, "/v1/models", bearer("whatever")) == 200


def test_every_route_has_been_given_a_permission_or_is_open() -> None:
    chosen = settings(KEYS)
    app = build_app(pool_of(chosen), chosen)
    paths = {resource.canonical for resource in app.router.resources()}
    decided = {path for path in paths for known in BY_PATH if path == known or path.startswith(f"{known}/")}
    assert paths - decided <= set(chosen.auth.open_paths)


class TestSignedTokens:
    def token(self, **fields: Any) -> Token:
        return Token(**{"id": "abc", "name": "ci", "permissions": ["models"], "created_s": int(time.time()), **fields})

    async def answer(self, text: str, key: str, path: str = "/v1/models") -> int:
        async with serving(text, bearer(key)) as client:
            return await status(client, path)

    async def test_a_token_carries_its_permissions(self) -> None:
        key = sign(self.token(), SECRET)
        assert key.startswith("sk-")
        async with serving(SIGNED, bearer(key)) as client:
            assert (await status(client, "/v1/models"), await status(client, "/v1/completions")) == (200, 403)

    async def test_with_or_without_the_prefix(self) -> None:
        assert await self.answer(SIGNED, sign(self.token(), SECRET).removeprefix("sk-")) == 200

    async def test_an_expired_one_is_401(self) -> None:
        past = int(time.time()) - 10
        assert await self.answer(SIGNED, sign(self.token(expires_s=past), SECRET)) == 401
        assert await self.answer(SIGNED, sign(self.token(expires_s=past + 3600), SECRET)) == 200

    async def test_one_that_somebody_else_signed_is_401(self) -> None:
        assert await self.answer(SIGNED, sign(self.token(), SECRET[::-1])) == 401

    async def test_one_that_was_changed_is_401(self) -> None:
        key = sign(self.token(), SECRET)
        more = sign(self.token(permissions=["all"]), SECRET)
        head, _, signature = key.split(".")
        assert await self.answer(SIGNED, ".".join((head, more.split(".")[1], signature))) == 401

    @pytest.mark.parametrize("algorithm", ["none", "HS384"])
    async def test_no_other_algorithm_counts(self, algorithm: str) -> None:
        claims = {"iss": "simserve", "jti": "x", "iat": 0, "name": "x", "permissions": ["all"]}
        secret = None if algorithm == "none" else SECRET * 2
        assert await self.answer(SIGNED, jwt.encode(claims, secret, algorithm=algorithm)) == 401

    async def test_keys_and_tokens_side_by_side(self) -> None:
        both = f"{FAST}auth: {{secret_key: {SECRET}, keys: [sk-x]}}\n"
        assert await self.answer(both, "sk-x") == 200
        assert await self.answer(both, sign(self.token(), SECRET)) == 200

    async def test_a_revoked_one_is_401_while_the_server_runs(self, tmp_path: Path) -> None:
        store = TokenStore(tmp_path / "keys.json")
        first, second = self.token(id="1"), self.token(id="2")
        store.add(first)
        store.add(second)
        text = f"{FAST}auth: {{secret_key: {SECRET}, store: {store.path}}}\n"
        async with serving(text) as client:
            assert await status(client, "/v1/models", bearer(sign(first, SECRET))) == 200
            store.revoke("1")
            assert await status(client, "/v1/models", bearer(sign(first, SECRET))) == 401
            assert await status(client, "/v1/models", bearer(sign(second, SECRET))) == 200
            assert await status(client, "/v1/models", bearer(sign(self.token(id="3"), SECRET))) == 401
            store.path.write_text("{")
            assert await status(client, "/v1/models", bearer(sign(second, SECRET))) == 401


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ("keys: [sk-a, sk-a]", "auth.keys has a key twice"),
        ("keys: ['sha256:abc']", "auth.keys.0 is not a SHA-256 digest"),
        ("keys: ['']", "auth.keys.0 is empty"),
    ],
)
def test_keys_that_cannot_be(auth: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        KeyRing(settings(f"auth: {{{auth}}}").auth)


def test_a_store_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("[]")
    with pytest.raises(ConfigError, match="is not a file of simserve keys"):
        KeyRing(settings(f"auth: {{secret_key: {SECRET}, store: {tmp_path}/keys.json}}").auth)


async def test_admin_paths_answer_to_this_machine_alone_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiohttp.web.BaseRequest, "remote", "192.0.2.1")
    async with serving(FAST) as client:
        assert await status(client, "/admin/config") == 403
        assert await status(client, "/v1/models") == 200


@pytest.mark.parametrize(
    ("host", "auth", "warned"),
    [
        ("0.0.0.0", "{}", True), ("::", "{}", True), ("", "{}", True), ("192.0.2.7", "{}", True),
        ("gpu-server", "{enabled: false, keys: [sk-x]}", True),
        ("0.0.0.0", "{keys: [sk-x]}", False), ("127.0.0.1", "{}", False), ("localhost", "{}", False),
        ("::1", "{}", False),
    ],
)  # fmt: skip
def test_who_can_be_reached_without_a_key_is_warned(
    host: str, auth: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_if_open(settings(f"auth: {auth}").auth, host)
    assert ("WARNING: listening on" in caplog.text) == warned
