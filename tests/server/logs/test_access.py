"""What is logged of a request: enough to find it again, nothing of what it carried."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from server.conftest import Client
from server.fakes import ScriptedEngine
from server.serving import FAST, serving
from server.test_disconnect import until
from simserve.server.logs import set_up_logging
from simserve.server.settings import LoggingSection


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """The fields of every request logged so far."""
    caplog.set_level(logging.INFO, logger="simserve.access")
    return lambda: [record.fields for record in caplog.records if record.name == "simserve.access"]


async def test_each_request_is_one_line_with_its_id(client: Client, lines: Any) -> None:
    headers = {"X-Request-Id": "my-id-7"}
    body = {"prompt": "once upon a time", "max_tokens": 7}
    async with client.session.post("/v1/completions", json=body, headers=headers) as response:
        assert response.headers["x-request-id"] == "my-id-7"
    (line,) = lines()
    assert line.pop("duration_ms") > 0
    assert line == {
        "request_id": "my-id-7",
        "remote": "127.0.0.1",
        "method": "POST",
        "path": "/v1/completions",
        "status": 200,
        "model": "test-model",
        "stream": False,
        "prompt_tokens": 4,
        "output_tokens": 7,
    }


async def test_requests_that_failed_too(client: Client, engine: ScriptedEngine, lines: Any) -> None:
    for request in (client.chat(max_tokens=0), client.session.get("/v9?key=sk"), client.session.get("/v1/completions")):
        async with request:
            pass
    engine.break_at = 0
    async with client.chat(max_tokens=5):
        pass
    assert [(line["path"], line["status"]) for line in lines()] == [
        ("/v1/chat/completions", 400), ("/v9", 404), ("/v1/completions", 405), ("/v1/chat/completions", 500),
    ]  # fmt: skip


async def test_a_client_that_hung_up_is_499(client: Client, engine: ScriptedEngine, lines: Any) -> None:
    engine.step_s = 0.05
    asking = asyncio.create_task(client.chunks(client.chat(max_tokens=100, stream=True)))
    await until(lambda: engine.running)
    asking.cancel()
    await until(lines)
    assert lines()[0]["status"] == 499


async def test_a_path_cannot_forge_a_line(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="simserve.access")
    async with client.session.get('/x%0a127.0.0.1 "GET /"'):
        pass
    (message,) = [record.getMessage() for record in caplog.records if record.name == "simserve.access"]
    assert "\n" not in message


async def test_it_can_be_switched_off(lines: Any) -> None:
    async with serving(f"{FAST}logging: {{access: false}}") as client, client.chat(max_tokens=1):
        pass
    assert lines() == []


class TestSettings:
    """``logging:`` in the settings, and what is written."""

    @pytest.fixture(autouse=True)
    def _as_before(self) -> Any:
        root, ours = logging.getLogger(), logging.getLogger("simserve")
        before = root.handlers[:], root.level, ours.level
        yield
        for handler in set(root.handlers) - set(before[0]):
            handler.close()
        root.handlers[:], root.level, ours.level = before
        logging.getLogger("simserve").setLevel(before[2])

    def written(self, tmp_path: Path, **keys: Any) -> list[str]:
        path = tmp_path / "server.log"
        handlers = set_up_logging(LoggingSection(path=path, **keys))
        logging.getLogger("simserve.server").debug("detail")
        logging.getLogger("simserve.server").info("told %d", 7)
        logging.getLogger("simserve.server").warning("beware", extra={"fields": {"more": 1}})
        for handler in handlers:
            handler.flush()
        return path.read_text().splitlines()

    def test_text(self, tmp_path: Path) -> None:
        lines = self.written(tmp_path)
        assert [line.split(" ", 1)[1] for line in lines] == ["INFO told 7", "WARNING beware"]

    def test_json(self, tmp_path: Path) -> None:
        lines = [json.loads(line) for line in self.written(tmp_path, format="json")]
        assert [(line["level"], line["message"], line.get("more")) for line in lines] == [
            ("info", "told 7", None), ("warning", "beware", 1),
        ]  # fmt: skip
        assert all(line["logger"] == "simserve.server" and "T" in line["time"] for line in lines)

    @pytest.mark.parametrize(("level", "count"), [("debug", 3), ("INFO", 2), ("warning", 1), ("error", 0)])
    def test_level(self, tmp_path: Path, level: str, count: int) -> None:
        assert len(self.written(tmp_path, level=level)) == count

    def test_console(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.written(tmp_path, console=False)
        assert capsys.readouterr().out == ""
        self.written(tmp_path)
        assert capsys.readouterr().out == "told 7\nbeware\n"
        self.written(tmp_path, format="json")
        assert json.loads(capsys.readouterr().out.splitlines()[0])["message"] == "told 7"

    def test_rotation_and_retention(self, tmp_path: Path) -> None:
        for _ in range(6):
            self.written(tmp_path, rotation="50 B", retention=2)
        assert len(list(tmp_path.glob("server.log.*"))) == 2
