"""What is struck out of what clients wrote: keys of the settings whatever they look like, and parts of them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from server.serving import FAST, serving, settings
from simserve.errors import ConfigError
from simserve.server.auth import Token, sign
from simserve.server.logs import set_up_logging
from simserve.server.secrecy import PART, Secrets
from simserve.server.settings import AuthSection, LoggingSection

SECRET = "s3cr3t-0123456789abcdef0123456789"
LONG, SHORT, ODD = "open sesame/and close it", "pass7", 'quo"te\\and-ümlaut'
HASHED = "known-by-its-digest"
AUTH = {
    "secret_key": SECRET,
    "keys": [LONG, SHORT, ODD, f"sha256:{hashlib.sha256(HASHED.encode()).hexdigest()}"],
}
SECRETS = Secrets(AuthSection.model_validate(AUTH))


@given(st.integers(0, len(LONG) - PART), st.integers(PART, len(LONG)), st.text(max_size=20), st.text(max_size=20))
@example(0, PART, "", "")
@example(3, len(LONG), LONG, "")
def test_no_part_of_a_key_is_left_wherever_it_stands(start: int, length: int, before: str, behind: str) -> None:
    part = LONG[start : start + length]
    left = SECRETS.without(f"{before}{part}{behind}")
    assert not any(part[at : at + PART] in left for at in range(len(part) - PART + 1))


@pytest.mark.parametrize("key", [LONG, SHORT, ODD, HASHED, SECRET, "sk-any", sign(Token("t", "n", ["all"], 0), SECRET)])
def test_a_whole_key_is_struck_out_of_a_path_however_it_is_spelled(key: str) -> None:
    for spelled in (key, quote(key, safe=""), quote(quote(key, safe=""), safe="")):
        left = SECRETS.without(f"/v1/models/{spelled}")
        assert spelled not in left
        assert key not in left
        assert SECRETS.are_in(spelled)


def test_each_part_of_a_signed_token_is_struck_out() -> None:
    for part in sign(Token("tok-1", "name", ["all"], 0), SECRET).split("."):
        assert SECRETS.are_in(part)
        assert part not in SECRETS.without(f"/v1/{part}/x")


@pytest.mark.parametrize(
    "text", ["/v1/models/task-7", "chatcmpl-2f1c", "disk-1", "x" * 43, "/pass71/pass", "'pass' of 7"]
)
def test_what_is_no_key_stays(text: str) -> None:
    without_a_secret = AuthSection(keys=AUTH["keys"])
    assert Secrets(without_a_secret).without(text) == text
    assert Secrets().without(text) == text


@pytest.mark.parametrize("key", [LONG, ODD, SECRET, "sk-any"])
def test_a_line_of_a_log_has_no_whole_key(key: str) -> None:
    for line in (f"it failed: {key}", json.dumps({"message": key}), f"GET /{quote(key, safe='')}"):
        for spelled in (key, json.dumps(key)[1:-1], quote(key, safe="")):
            assert spelled not in SECRETS.in_line(line)


def test_secrets_of_nobody_change_nothing() -> None:
    assert Secrets(AuthSection(secret_key=SecretStr(SECRET))).in_line("plain") == "plain"


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Path]:
    """The file that everything is logged to, at the lowest level, with the secrets of the settings struck out."""
    root, ours = logging.getLogger(), logging.getLogger("simserve")
    before = root.handlers[:], root.level, ours.level
    handlers = set_up_logging(LoggingSection(path=tmp_path / "log", level="debug", format="json"), SECRETS)
    yield tmp_path / "log"
    for handler in handlers:
        handler.close()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def written_to(log: Path) -> str:
    for handler in logging.getLogger().handlers:
        handler.flush()
    return log.read_text()


async def test_a_server_logs_and_says_nothing_of_keys_that_look_like_words(
    log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [LONG, SHORT, HASHED, SECRET]
    text = f"{FAST}auth: {{secret_key: {SECRET}, keys: ['{LONG}', '{SHORT}', '{AUTH['keys'][-1]}']}}\n"
    said: list[str] = []

    def breaks(*_: object) -> None:
        raise RuntimeError(f"part of a key: {LONG[:12]}")

    async with serving(text, {"Authorization": f"Bearer {LONG}"}) as client:
        for key in keys:
            body = {"prompt": "x", "max_tokens": 1, "request_id": key if key != LONG else "mine"}
            for path in (f"/{quote(key, safe='')}", f"/v1/models/{key}", f"/v1/responses/{quote(key, safe='')}"):
                async with client.session.get(path, params={"model": key}, headers={"X-Request-Id": key}) as response:
                    said.append(f"{response.headers} {await response.text()}")
                    assert response.status == 404
            async with client.session.post(
                "/v1/completions", json=body, headers={"X-Request-Id": key[:PART]}
            ) as response:
                said.append(f"{response.headers} {await response.text()}")
        monkeypatch.setattr("simserve.server.bodies.parse", breaks)
        async with client.session.post("/v1/completions", json={}) as response:
            assert response.status == 500
    written = written_to(log) + "".join(capsys.readouterr())
    assert written.count('"path":"/v1/completions"') == len(keys) + 1
    assert "part of a key: ***" in written
    for where, everything in (("logged", written), ("said", "\n".join(said))):
        for key in keys:
            for shown in (key, quote(key, safe="")):
                assert shown not in everything, (where, shown)
        for part in (LONG[:PART], SECRET[:PART]):
            assert part not in everything, (where, part)


def test_settings_that_are_wrong_are_not_repeated_where_keys_stand() -> None:
    with pytest.raises(ConfigError) as caught:
        settings(f"{FAST}auth: open-sesame\n")
    assert "sesame" not in str(caught.value)
