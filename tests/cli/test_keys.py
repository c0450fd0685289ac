"""``simserve keys``: made, listed, revoked."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from simserve.cli.main import main
from simserve.server.auth import read_token

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIMSERVE_AUTH__SECRET_KEY", SECRET)
    return tmp_path / "keys.json"


def keys(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["keys", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out.strip(), said.err.strip()


def test_a_key_is_printed_once_and_noted_without_itself(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, key, said = keys(
        capsys, "create", "--store", store, "--name", "ci", "--permissions", "chat", "models", "--expires", "30 days",
        "--requests-per-minute", 60,
    )  # fmt: skip
    token = read_token(key, SECRET)
    assert code == 0
    assert (token.name, token.permissions, token.requests_per_minute) == ("ci", ["chat", "models"], 60)
    assert token.expires_s == token.created_s + 30 * 86400
    assert said == f"ci: noted as {token.id} in {store}"
    assert key not in store.read_text()
    assert key.rsplit(".", 1)[1] not in store.read_text()
    assert stat.S_IMODE(os.stat(store).st_mode) == 0o600


def test_listed_and_revoked(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ci", "ci", "alice"):
        keys(capsys, "create", "--store", store, "--name", name)
    rows = json.loads(keys(capsys, "list", "--store", store, "--json")[1])
    assert [(row["name"], row["state"], row["expires"]) for row in rows] == [
        ("ci", "active", "never"), ("ci", "active", "never"), ("alice", "active", "never"),
    ]  # fmt: skip
    code, said, _ = keys(capsys, "revoke", "ci", "--store", store)
    assert (code, said.count("revoked")) == (0, 2)
    assert keys(capsys, "revoke", rows[2]["id"], "--store", store)[1] == f"revoked {rows[2]['id']} (alice)"
    table = keys(capsys, "list", "--store", store)[1]
    assert table.count("revoked") == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "--name", "x", "--expires", "soon"], "--expires soon: it must be a duration"),
        (["create", "--name", "x", "--requests-per-minute", "0"], "--requests-per-minute must be a whole number"),
        (["create", "--name", "x", "--permissions", "root"], "invalid choice: 'root'"),
        (["revoke", "nobody"], "has no key nobody"),
    ],
)
def test_what_cannot_be(store: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    code, _, error = keys(capsys, *words, "--store", store)
    assert code == 2
    assert said in error
    assert error.count("\n") == 0
    assert not store.exists()


def test_without_a_secret_or_a_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no secret to sign with" in keys(capsys, "create", "--name", "x")[2]
    assert "no file of keys" in keys(capsys, "list")[2]
