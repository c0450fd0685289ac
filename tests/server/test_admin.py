"""What an administrator changes while the server runs."""

from __future__ import annotations

from typing import Any

import pytest

from server.conftest import Client
from server.serving import FAST, serving

TWO = "engine: {time_scale: .inf}\nmodels: {available: {a: {path: facebook/opt-125m}, b: {path: facebook/opt-125m}}}"


async def post(client: Client, path: str, **body: Any) -> tuple[int, Any]:
    async with client.session.post(path, json=body) as response:
        return response.status, await response.json()


async def test_failures_are_switched_on_and_off() -> None:
    async with serving(FAST) as client:
        assert (await client.get("/admin/config"))["failures"]["enabled"] is False
        status, body = await post(client, "/admin/config", failures={"rate": 1.0, "statuses": [502]})
        assert (status, body["failures"]["rate"], body["failures"]["enabled"]) == (200, 1.0, True)
        assert (await post(client, "/v1/completions", prompt="x"))[0] == 502
        await post(client, "/admin/config", failures={"statuses": [418]})  # the rate stays
        assert (await post(client, "/v1/completions", prompt="x"))[0] == 418
        await post(client, "/admin/config", failures={"rate": 0})
        assert (await post(client, "/v1/completions", prompt="x"))[0] == 200


@pytest.mark.parametrize(
    "body", [{"failures": {"rate": 2}}, {"failures": {"rat": 1}}, {"server": {}}, {"failures": {"statuses": []}}]
)
async def test_a_change_that_cannot_be_changes_nothing(body: dict[str, Any]) -> None:
    async with serving(f"{FAST}failures: {{rate: 0.5}}") as client:
        before = await client.get("/admin/config")
        status, answer = await post(client, "/admin/config", **body)
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
        assert await client.get("/admin/config") == before


async def test_models_are_loaded_and_unloaded() -> None:
    async with serving(TWO) as client:
        status, body = await post(client, "/admin/models/load", model="b")
        assert (status, [model["state"] for model in body["models"]]) == (200, ["loaded", "loaded"])
        status, body = await post(client, "/admin/models/unload", model="a")
        assert [model["state"] for model in body["models"]] == ["unloaded", "loaded"]
        assert await client.get("/admin/models") == body
        assert (await post(client, "/admin/models/unload", model="a"))[0] == 200
        assert (await post(client, "/admin/models/unload", model="z"))[0] == 404
        assert (await post(client, "/v1/completions", model="a", prompt="x"))[0] == 200


async def test_an_administrator_s_key_is_needed_where_there_are_keys() -> None:
    text = f"{FAST}auth: {{keys: [{{key: sk-a, permissions: [admin]}}, {{key: sk-c, permissions: [chat, models]}}]}}"
    for key, expected in (("sk-a", 200), ("sk-c", 403), ("sk-x", 401)):
        async with serving(text, {"Authorization": f"Bearer {key}"}) as client:
            for path in ("/admin/config", "/admin/models"):
                async with client.session.get(path) as response:
                    assert response.status == expected
